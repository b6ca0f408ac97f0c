{{/* Names, labels, images. */}}

{{- define "visiongate.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* A release that has the chart's name in its own is called by that alone. Suffixes need the room of 13 letters. */}}
{{- define "visiongate.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- $name := include "visiongate.name" . -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "visiongate.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "visiongate.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- include "visiongate.required" (list "serviceAccount.name: without serviceAccount.create it must name an account" .Values.serviceAccount.name) -}}
{{- end -}}
{{- end -}}

{{/* Labels by which a component's pods are found: (dict "root" $ "component" "gateway"). */}}
{{- define "visiongate.selectorLabels" -}}
app.kubernetes.io/name: {{ include "visiongate.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Labels of an object: (dict "root" $ "component" "gateway"). */}}
{{- define "visiongate.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{ include "visiongate.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: visiongate
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The reference of an image: (dict "root" $ "image" .Values.gateway.image "own" true). */}}
{{- define "visiongate.image" -}}
{{- $repository := .image.repository -}}
{{- if and .own .root.Values.imageRegistry -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .root.Values.imageRegistry) $repository -}}
{{- end -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .root.Chart.AppVersion .image.tag) -}}
{{- end -}}
{{- end -}}

{{/* Labels of Prometheus' series of a component's pods. Each pod's name is the Deployment's and two words. */}}
{{- define "visiongate.podSeries" -}}
namespace={{ .root.Release.Namespace | quote }},pod=~"{{ include "visiongate.deployment" . }}-[a-z0-9]+-[a-z0-9]+"
{{- end -}}

{{/* The name of a component's Deployment. A sidecar is in the gateway's. */}}
{{- define "visiongate.deployment" -}}
{{- $name := include "visiongate.fullname" .root -}}
{{- if and (eq .component "triton") (eq .root.Values.triton.mode "separate") -}}
{{- printf "%s-triton" $name -}}
{{- else -}}
{{- $name -}}
{{- end -}}
{{- end -}}

{{/* A list of topology spread constraints: (dict "root" $ "component" "gateway" "constraints" …). */}}
{{- define "visiongate.topologySpread" -}}
{{- $labels := include "visiongate.selectorLabels" . | fromYaml -}}
{{- range .constraints }}
- {{ mergeOverwrite (dict "labelSelector" (dict "matchLabels" $labels)) . | toYaml | nindent 2 | trim }}
{{- end }}
{{- end -}}

{{/* Stop with a message. `helm lint` takes no notice of `fail`, but it does of a template that does not exist. */}}
{{- define "visiongate.refuse" -}}
{{- fail . -}}
{{- include . "" -}}
{{- end -}}

{{/* A value, or stop with a message if it is empty: (list "message" value). */}}
{{- define "visiongate.required" -}}
{{- if not (last .) -}}
{{- include "visiongate.refuse" (first .) -}}
{{- end -}}
{{- last . -}}
{{- end -}}
