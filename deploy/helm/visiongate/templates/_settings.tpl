{{/* The gateway's settings, as environment variables. */}}

{{/* All settings as a YAML mapping: the values', and those that the chart sets itself. */}}
{{- define "visiongate.settings" -}}
{{- $values := .Values -}}
{{- $settings := deepCopy $values.gateway.settings -}}
{{- $host := $values.gateway.listenHost -}}
{{- $own := dict
  "host" $host "port" "50051"
  "metrics_host" $host "metrics_port" "9090"
  "repository" "/models"
  "triton" (include "visiongate.tritonAddress" .)
-}}
{{- if $values.gateway.http.enabled -}}
{{- $_ := set $own "http_host" $host -}}
{{- $_ := set $own "http_port" "8080" -}}
{{- $names := concat (default list $settings.http_hosts) (include "visiongate.hostNames" . | fromYamlArray) -}}
{{- $_ := set $own "http_hosts" (uniq $names) -}}
{{- else -}}
{{- $_ := set $own "http_port" "" -}}
{{- end -}}
{{- if $values.apiKeys.existingSecret -}}
{{- $_ := set $own "api_keys" (printf "/etc/visiongate/api-keys/%s" $values.apiKeys.key) -}}
{{- end -}}
{{- if include "visiongate.imageIdSecret" . -}}
{{- $_ := set $own "image_id_secret" (printf "/etc/visiongate/image-ids/%s" $values.imageIds.key) -}}
{{- end -}}
{{- if include "visiongate.tlsSecret" . -}}
{{- $_ := set $own "tls_certificate" "/etc/visiongate/tls/tls.crt" -}}
{{- $_ := set $own "tls_key" "/etc/visiongate/tls/tls.key" -}}
{{- end -}}
{{- if $values.tls.clientCa.existingSecret -}}
{{- $_ := set $own "tls_client_ca" (printf "/etc/visiongate/client-ca/%s" $values.tls.clientCa.key) -}}
{{- end -}}
{{- range $name, $value := merge $own $settings -}}
{{- if not (kindIs "invalid" $value) }}
VISIONGATE_{{ upper $name }}: {{ include "visiongate.settingText" $value | quote }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A setting's text. Numbers of YAML are floats to Helm: JSON writes 2147483648 out, where others have 2.147e+09. */}}
{{- define "visiongate.settingText" -}}
{{- if kindIs "slice" . -}}{{ join "," . }}
{{- else if kindIs "string" . -}}{{ . }}
{{- else -}}{{ toJson . }}
{{- end -}}
{{- end -}}

{{- define "visiongate.tritonAddress" -}}
{{- $triton := .Values.triton -}}
{{- if eq $triton.mode "sidecar" -}}
127.0.0.1:8001
{{- else if eq $triton.mode "separate" -}}
dns:///{{ include "visiongate.fullname" . }}-triton:8001
{{- else -}}
{{- include "visiongate.required" (list "triton.address: triton.mode external needs it" $triton.address) -}}
{{- end -}}
{{- end -}}

{{/* The Services' own names, shortest first, as a YAML array. */}}
{{- define "visiongate.serviceNames" -}}
{{- $namespace := .Release.Namespace -}}
{{- $domain := .Values.clusterDomain -}}
{{- $name := include "visiongate.fullname" . -}}
{{- range $service := list $name (printf "%s-headless" $name) }}
- {{ $service }}
- {{ $service }}.{{ $namespace }}
- {{ $service }}.{{ $namespace }}.svc
- {{ $service }}.{{ $namespace }}.svc.{{ $domain }}
{{- end -}}
{{- end -}}

{{/* Names by which HTTP requests call the gateway, as a YAML array. One without a dot needs no permission. */}}
{{- define "visiongate.hostNames" -}}
{{- $hosts := list -}}
{{- range include "visiongate.serviceNames" . | fromYamlArray -}}
{{- if contains "." . -}}{{- $hosts = append $hosts . -}}{{- end -}}
{{- end -}}
{{- if .Values.httpRoute.enabled -}}{{- $hosts = concat $hosts .Values.httpRoute.hostnames -}}{{- end -}}
{{- if .Values.ingress.http.enabled -}}{{- $hosts = concat $hosts .Values.ingress.http.hosts -}}{{- end -}}
{{- range $hosts }}
- {{ trimPrefix "*" . }}
{{- end -}}
{{- end -}}

{{- define "visiongate.tlsSecret" -}}
{{- if .Values.tls.certManager.enabled -}}
{{- if .Values.tls.existingSecret -}}
{{- include "visiongate.refuse" "tls.existingSecret: tls.certManager.enabled makes the Secret itself, set one of the two" -}}
{{- end -}}
{{- include "visiongate.fullname" . }}-tls
{{- else -}}
{{- .Values.tls.existingSecret -}}
{{- end -}}
{{- end -}}

{{- define "visiongate.imageIdSecret" -}}
{{- if .Values.imageIds.existingSecret -}}
{{- .Values.imageIds.existingSecret -}}
{{- else if .Values.imageIds.generate -}}
{{- include "visiongate.fullname" . }}-image-ids
{{- end -}}
{{- end -}}

{{/* Seconds between SIGTERM and SIGKILL of the gateway. */}}
{{- define "visiongate.gracePeriod" -}}
{{- $settings := .Values.gateway.settings -}}
{{- $needed := addf (default 0 $settings.drain_s) (ternary $settings.grace_s 20 (hasKey $settings "grace_s")) 5 | ceil | int -}}
{{- $wanted := .Values.gateway.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $wanted -}}
{{- $needed -}}
{{- else if lt (int $wanted) $needed -}}
{{- include "visiongate.refuse" (printf "gateway.terminationGracePeriodSeconds: %d is less than drain_s + grace_s + 5, which is %d: calls would be lost" (int $wanted) $needed) -}}
{{- else -}}
{{- int $wanted -}}
{{- end -}}
{{- end -}}
