{{/* What scales: the components whose pods a Deployment has, and their metrics. */}}

{{/* The components of one's Deployment, as a YAML array. A sidecar's metrics scale the gateway's pods. */}}
{{- define "visiongate.scaledBy" -}}
- {{ .component }}
{{- if and (eq .component "gateway") (eq .root.Values.triton.mode "sidecar") }}
- triton
{{- end }}
{{- end -}}

{{/* The components with a Deployment of their own, as a YAML array. */}}
{{- define "visiongate.scaled" -}}
- gateway
{{- if eq .Values.triton.mode "separate" }}
- triton
{{- end }}
{{- end -}}

{{/* Say no to ranges that are none. */}}
{{- define "visiongate.checkRange" -}}
{{- $range := (get .root.Values .component).autoscaling -}}
{{- if gt (int $range.minReplicas) (int $range.maxReplicas) -}}
{{- include "visiongate.refuse" (printf "%s.autoscaling.minReplicas: %d is more than maxReplicas, which is %d" .component (int $range.minReplicas) (int $range.maxReplicas)) -}}
{{- end -}}
{{- end -}}
