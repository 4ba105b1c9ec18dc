{{/* The two components differ in what they run and in how they stop:
     (dict "root" $ "component" "server" "values" .Values.server "command" "serve" "port" 8080 "portName" "api" "preStop" 5 "grace" 40). */}}
{{- define "colophon.deployment" -}}
{{- $root := .root -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "colophon.fullname" $root }}-{{ .component }}
  labels:
    {{- include "colophon.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  {{- if not .values.autoscaling.enabled }}
  replicas: {{ int64 .values.replicas }}
  {{- end }}
  revisionHistoryLimit: 3
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  selector:
    matchLabels:
      {{- include "colophon.selector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- with .values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- include "colophon.selector" . | nindent 8 }}
      annotations:
        {{- with .values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        # What the service reads at its start only; a change of it starts new pods.
        checksum/config: {{ include "colophon.configAtStart" $root | sha256sum }}
    spec:
      serviceAccountName: {{ include "colophon.serviceAccountName" $root }}
      {{- include "colophon.podDefaults" $root | nindent 6 }}
      terminationGracePeriodSeconds: {{ .grace }}
      {{- with .values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      containers:
        - name: {{ .component }}
          {{- include "colophon.container" $root | nindent 10 }}
          args: ["-c", "/etc/colophon/colophon.toml", {{ .command | quote }}]
          ports:
            - name: {{ .portName }}
              containerPort: {{ .port }}
            {{- if $root.Values.telemetry.prometheus.enabled }}
            - name: metrics
              containerPort: 9464
            {{- end }}
          startupProbe:
            httpGet: {path: /livez, port: {{ .portName }}}
            periodSeconds: 2
            failureThreshold: 30
          livenessProbe:
            httpGet: {path: /livez, port: {{ .portName }}}
            periodSeconds: 10
            timeoutSeconds: 3
          readinessProbe:
            httpGet: {path: /readyz, port: {{ .portName }}}
            periodSeconds: 5
            # The service gives the parts that it asks four seconds.
            timeoutSeconds: 5
          {{- with .preStop }}
          # New calls come for a while after the pod has been taken out of the Service.
          lifecycle:
            preStop:
              sleep: {seconds: {{ . }}}
          {{- end }}
          resources:
            {{- toYaml .values.resources | nindent 12 }}
          volumeMounts:
            {{- include "colophon.mounts" $root | nindent 12 }}
      volumes:
        {{- include "colophon.volumes" $root | nindent 8 }}
      {{- $selector := . }}
      {{- with .values.topologySpreadConstraints }}
      topologySpreadConstraints:
        {{- range . }}
        - {{ toYaml . | nindent 10 | trim }}
          labelSelector:
            matchLabels:
              {{- include "colophon.selector" $selector | nindent 14 }}
          matchLabelKeys: [pod-template-hash]
        {{- end }}
      {{- end }}
      {{- with .values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .values.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}

{{- define "colophon.scaling" -}}
{{- $name := printf "%s-%s" (include "colophon.fullname" .root) .component -}}
{{- with .values.autoscaling }}
{{- if .enabled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ $name }}
  labels:
    {{- include "colophon.labels" $.root | nindent 4 }}
    app.kubernetes.io/component: {{ $.component }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ $name }}}
  minReplicas: {{ int64 .minReplicas }}
  maxReplicas: {{ int64 .maxReplicas }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ int64 .targetCPUUtilizationPercentage }}}
{{- end }}
{{- end }}
{{- with .values.podDisruptionBudget }}
{{- if .enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  labels:
    {{- include "colophon.labels" $.root | nindent 4 }}
    app.kubernetes.io/component: {{ $.component }}
spec:
  maxUnavailable: {{ int64 .maxUnavailable }}
  # A pod that is not ready must not keep its node from being drained.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "colophon.selector" $ | nindent 6 }}
{{- end }}
{{- end }}
{{- end -}}
