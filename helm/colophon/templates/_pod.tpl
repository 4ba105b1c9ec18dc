{{/* What every pod of the chart has in common; "restricted" of the pod security standards. */}}
{{- define "colophon.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.runAsUser }}
runAsUser: {{ int64 . }}
runAsGroup: {{ int64 . }}
# So that this user can read what is mounted.
fsGroup: {{ int64 . }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "colophon.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "colophon.container" -}}
image: {{ include "colophon.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- include "colophon.containerSecurity" . | nindent 2 }}
{{- end -}}

{{- define "colophon.podDefaults" -}}
automountServiceAccountToken: false
# Variables named after services are no part of the configuration.
enableServiceLinks: false
securityContext:
  {{- include "colophon.podSecurity" . | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "colophon.mounts" -}}
- name: config
  mountPath: /etc/colophon
  readOnly: true
- name: secrets
  mountPath: {{ include "colophon.secrets" . }}
  readOnly: true
{{- end -}}

{{/* The configuration with the certificate authorities, and what is secret. */}}
{{- define "colophon.volumes" -}}
- name: config
  projected:
    defaultMode: 0444
    sources:
      - configMap:
          name: {{ include "colophon.fullname" . }}
          items: [{key: colophon.toml, path: colophon.toml}]
      {{- range .Values.certificateAuthorities }}
      - {{ ternary "secret" "configMap" (hasKey . "secret") }}:
          name: {{ default .configMap .secret }}
          items: [{key: {{ .key | default "ca.crt" | quote }}, path: ca/{{ .name }}.pem}]
      {{- end }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ .Values.database.urlSecret.name }}
          items: [{key: {{ .Values.database.urlSecret.key | quote }}, path: database-url}]
      {{- with .Values.config.vault }}
      {{- if has .auth.method (list "kubernetes" "jwt") }}
      - serviceAccountToken:
          path: vault-service-account
          audience: {{ $.Values.vault.serviceAccountToken.audience | quote }}
          expirationSeconds: {{ int64 $.Values.vault.serviceAccountToken.expirationSeconds }}
      {{- else if eq .auth.method "token" }}
      - secret:
          name: {{ $.Values.vault.tokenSecret.name }}
          items: [{key: {{ $.Values.vault.tokenSecret.key | quote }}, path: vault-token}]
      {{- else }}
      - secret:
          name: {{ $.Values.vault.secretIdSecret.name }}
          items: [{key: {{ $.Values.vault.secretIdSecret.key | quote }}, path: vault-secret-id}]
      {{- end }}
      {{- with $.Values.vault.clientSecret }}
      {{- if .name }}
      - secret:
          name: {{ .name }}
          items: [{key: {{ .certKey | quote }}, path: vault-client.crt}, {key: {{ .keyKey | quote }}, path: vault-client.key}]
      {{- end }}
      {{- end }}
      {{- end }}
      {{- if include "colophon.otlpHeaders" . }}
      {{- with .Values.telemetry.otlpHeadersSecret }}
      - secret:
          name: {{ .name }}
          items: [{key: {{ .key | quote }}, path: otlp-headers}]
      {{- end }}
      {{- end }}
{{- end -}}
