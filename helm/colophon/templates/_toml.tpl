{{/* Helm's own toToml writes every number with a fraction, which the service refuses. A string of
     JSON is a string of TOML. */}}
{{- define "colophon.toml.value" -}}
{{- if kindIs "string" . -}}
{{- . | toJson -}}
{{- else if kindIs "bool" . -}}
{{- . -}}
{{- else if kindIs "slice" . -}}
{{- $values := list -}}
{{- range . -}}{{- $values = append $values (include "colophon.toml.value" .) -}}{{- end -}}
[{{ join ", " $values }}]
{{- else if kindIs "map" . -}}
{{- $pairs := list -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $pairs = append $pairs (printf "%s = %s" (include "colophon.toml.key" $key) (include "colophon.toml.value" $value)) -}}
{{- end -}}
{{- end -}}
{{ printf "{ %s }" (join ", " $pairs) }}
{{- else if eq (float64 .) (floor .) -}}
{{- int64 . -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{/* A key that is more than a word is written in quotes. */}}
{{- define "colophon.toml.key" -}}
{{- regexMatch "^[A-Za-z0-9_-]+$" . | ternary . (toJson .) -}}
{{- end -}}

{{- define "colophon.toml.keys" -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ include "colophon.toml.value" $value }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A whole file: sections are tables, lists of sections are arrays of tables. */}}
{{- define "colophon.toml" -}}
{{- range $section, $value := . -}}
{{- if kindIs "slice" $value -}}
{{- range $value }}
[[{{ $section }}]]
{{- include "colophon.toml.keys" . }}
{{ end -}}
{{- else if $value }}
[{{ $section }}]
{{- include "colophon.toml.keys" $value }}
{{ end -}}
{{- end -}}
{{- end -}}
