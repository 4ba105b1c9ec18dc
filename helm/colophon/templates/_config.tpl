{{/* What the schema cannot say, because it is about several values. Each message says what to do. */}}
{{- define "colophon.checks" -}}
{{- $config := .Values.config -}}
{{- $known := list -}}
{{- range .Values.certificateAuthorities -}}
{{- if has .name $known -}}
{{- fail (printf "certificateAuthorities: the name %s is there twice" .name) -}}
{{- end -}}
{{- $known = append $known .name -}}
{{- end -}}
{{- $files := list -}}
{{- with $config.vault -}}{{- $files = append $files .ca_file -}}{{- end -}}
{{- with $config.telemetry -}}{{- $files = append $files .otlp_ca_file -}}{{- end -}}
{{- range $config.registry -}}
{{- $files = append $files .ca_file -}}
{{- if and .credentials (not $config.vault) -}}
{{- fail (printf "config.registry: %s has credentials, and there is no config.vault to read them from" .host) -}}
{{- end -}}
{{- end -}}
{{- range compact $files -}}
{{- $name := base . | trimSuffix ".pem" -}}
{{- if not (has $name $known) -}}
{{- fail (printf "ca_file %s: add an entry with name: %s to certificateAuthorities" . $name) -}}
{{- end -}}
{{- end -}}
{{- with $config.vault -}}
{{- $method := .auth.method -}}
{{- if and (eq $method "approle") (not $.Values.vault.secretIdSecret.name) -}}
{{- fail "vault.secretIdSecret.name: the method approle needs the Secret that holds the secret id" -}}
{{- end -}}
{{- if and (eq $method "token") (not $.Values.vault.tokenSecret.name) -}}
{{- fail "vault.tokenSecret.name: the method token needs the Secret that holds the token" -}}
{{- end -}}
{{- end -}}
{{- if include "colophon.otlpHeaders" . -}}
{{- $private := "^https:|^http://(localhost|127([.][0-9]+){3}|\\[::1\\])(:[0-9]+)?/?$" -}}
{{- if not (or $config.telemetry.otlp_plain_http (regexMatch $private $config.telemetry.otlp_endpoint)) -}}
{{- fail "config.telemetry.otlp_endpoint: the headers of telemetry.otlpHeadersSecret would go over the network without TLS; use https://, or set config.telemetry.otlp_plain_http" -}}
{{- end -}}
{{- end -}}
{{- range $component := list "server" "worker" -}}
{{- $scaling := (get $.Values $component).autoscaling -}}
{{- if and $scaling.enabled (gt (int $scaling.minReplicas) (int $scaling.maxReplicas)) -}}
{{- fail (printf "%s.autoscaling: minReplicas is greater than maxReplicas" $component) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether there is a collector whose headers are secret. */}}
{{- define "colophon.otlpHeaders" -}}
{{- if and (default dict .Values.config.telemetry).otlp_endpoint .Values.telemetry.otlpHeadersSecret.name -}}true{{- end -}}
{{- end -}}

{{- define "colophon.secrets" -}}/var/run/secrets/colophon{{- end -}}

{{/* The configuration as the service reads it: what is in the values, and what the chart adds. */}}
{{- define "colophon.config" -}}
{{- include "colophon.toml" (include "colophon.configWhole" . | fromJson) -}}
{{- end -}}

{{/* What of it holds until a pod ends. The service reads the rest again by itself, if it may. */}}
{{- define "colophon.configAtStart" -}}
{{- $config := include "colophon.configWhole" . | fromJson -}}
{{- if (default dict $config.reload).watch_interval -}}
{{- $config = omit $config "registry" "vault" "repository" "caller" -}}
{{- end -}}
{{- include "colophon.toml" $config -}}
{{- end -}}

{{- define "colophon.configWhole" -}}
{{- $config := deepCopy .Values.config -}}
{{- $secrets := include "colophon.secrets" . -}}
{{- $_ := set $config "server" (merge (dict "listen" (printf "%s:8080" .Values.listenHost)) (default dict $config.server)) -}}
{{- $_ := set $config "worker" (merge (dict "health_listen" (printf "%s:8081" .Values.listenHost)) (default dict $config.worker)) -}}
{{- $_ := set $config "database" (merge (dict "url_file" (printf "%s/database-url" $secrets)) (default dict $config.database)) -}}
{{- $telemetry := default dict $config.telemetry -}}
{{- if .Values.telemetry.prometheus.enabled -}}
{{- $_ := set $telemetry "prometheus_listen" (printf "%s:9464" .Values.listenHost) -}}
{{- end -}}
{{- if include "colophon.otlpHeaders" . -}}
{{- $_ := set $telemetry "otlp_headers_file" (printf "%s/otlp-headers" $secrets) -}}
{{- end -}}
{{- $_ := set $config "telemetry" $telemetry -}}
{{- with $config.vault -}}
{{- if $.Values.vault.clientSecret.name -}}
{{- $_ := set . "client_cert_file" (printf "%s/vault-client.crt" $secrets) -}}
{{- $_ := set . "client_key_file" (printf "%s/vault-client.key" $secrets) -}}
{{- end -}}
{{- if has .auth.method (list "kubernetes" "jwt") -}}
{{- $_ := set .auth "token_file" (printf "%s/vault-service-account" $secrets) -}}
{{- $_ := set .auth "audience" $.Values.vault.serviceAccountToken.audience -}}
{{- else if eq .auth.method "token" -}}
{{- $_ := set .auth "token_file" (printf "%s/vault-token" $secrets) -}}
{{- else -}}
{{- $_ := set .auth "secret_id_file" (printf "%s/vault-secret-id" $secrets) -}}
{{- end -}}
{{- end -}}
{{- $config | toJson -}}
{{- end -}}
