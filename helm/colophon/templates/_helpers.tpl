{{- define "colophon.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Names of pods get a suffix of up to 17 characters, and a label holds 63. */}}
{{- define "colophon.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "colophon.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: colophon
{{ include "colophon.instance" . }}
{{- end -}}

{{- define "colophon.instance" -}}
app.kubernetes.io/name: {{ include "colophon.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Which pods are a component's: (dict "root" $ "component" "server"). */}}
{{- define "colophon.selector" -}}
{{ include "colophon.instance" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "colophon.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "colophon.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "colophon.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* A duration of the configuration in whole seconds, rounded up. */}}
{{- define "colophon.seconds" -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- $number := trimSuffix $unit . | int64 -}}
{{- if eq $unit "ms" -}}{{ div (add $number 999) 1000 }}
{{- else -}}{{ mul $number (get (dict "s" 1 "m" 60 "h" 3600 "d" 86400) $unit) }}
{{- end -}}
{{- end -}}

{{/* The port of `host[:port]`: (dict "authority" .. "default" 443). */}}
{{- define "colophon.port" -}}
{{- regexFind ":[0-9]+$" .authority | trimPrefix ":" | default .default -}}
{{- end -}}

{{/* The services of the contract, which a gateway tells from REST by their path. */}}
{{- define "colophon.grpcServices" -}}
- colophon.v1.FreezeService
- colophon.v1.ReleaseService
- colophon.v1.TagService
- colophon.v1.UploadService
- grpc.health.v1.Health
- grpc.reflection.v1.ServerReflection
{{- end -}}
