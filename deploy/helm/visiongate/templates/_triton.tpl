{{/* Triton's container: as a sidecar of the gateway, or in pods of its own. */}}

{{- define "visiongate.tritonContainer" -}}
{{- $triton := .Values.triton -}}
{{- $isSidecar := eq $triton.mode "sidecar" -}}
{{- $isIpv6 := eq .Values.gateway.listenHost "::" -}}
- name: triton
  image: {{ include "visiongate.image" (dict "root" . "image" $triton.image) }}
  imagePullPolicy: {{ $triton.image.pullPolicy }}
  {{- if $isSidecar }}
  # A native sidecar: it starts before the gateway, and stops after it has answered its last call.
  restartPolicy: Always
  {{- end }}
  args:
    - tritonserver
    - --model-repository={{ include "visiongate.repository" . }}
    - --model-control-mode={{ $triton.modelControl }}
    {{- if and $triton.loadModels (ne $triton.modelControl "explicit") }}
    {{- include "visiongate.refuse" "triton.loadModels: only triton.modelControl explicit loads models by name" }}
    {{- end }}
    {{- range $triton.loadModels }}
    - --load-model={{ . }}
    {{- end }}
    # A model that is broken takes down nothing but its own variant: the gateway knows what is ready.
    - --exit-on-error=false
    - --strict-readiness=false
    - --exit-timeout-secs={{ $triton.exitTimeoutSeconds }}
    {{- if $isSidecar }}
    - --grpc-address=127.0.0.1
    - --http-address=127.0.0.1
    {{- else if $isIpv6 }}
    - "--grpc-address=[::]"
    - "--http-address=ipv6:::"
    {{- end }}
    # Prometheus asks from outside. By default it would be the address of HTTP.
    - {{ printf "--metrics-address=%s" (ternary "ipv6:::" "0.0.0.0" $isIpv6) | quote }}
    - --grpc-port=8001
    - --http-port=8000
    - --metrics-port=8002
    {{- if and $isSidecar $triton.clientSharedMemory }}
    # The gateway's embeddings of images lie in /dev/shm, which the two have in common.
    - --allow-client-shm=true
    {{- end }}
    {{- range $triton.extraArgs }}
    - {{ . | quote }}
    {{- end }}
  env:
    - name: HOME
      value: /tmp
    {{- if and (eq .Values.models.source "s3") .Values.models.s3.region }}
    - name: AWS_REGION
      value: {{ .Values.models.s3.region | quote }}
    - name: AWS_DEFAULT_REGION
      value: {{ .Values.models.s3.region | quote }}
    {{- end }}
    {{- with $triton.extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    {{- if not $isSidecar }}
    - name: triton-http
      containerPort: 8000
    - name: triton-grpc
      containerPort: 8001
    {{- end }}
    - name: triton-metrics
      containerPort: 8002
  startupProbe:
    {{- include "visiongate.tritonProbe" (dict "isSidecar" $isSidecar "path" "/v2/health/ready") | nindent 4 }}
    periodSeconds: 5
    failureThreshold: {{ divf $triton.startupSeconds 5 | ceil | int }}
    timeoutSeconds: 5
  livenessProbe:
    {{- include "visiongate.tritonProbe" (dict "isSidecar" $isSidecar "path" "/v2/health/live") | nindent 4 }}
    periodSeconds: 10
    failureThreshold: 6
    timeoutSeconds: 5
  {{- if not $isSidecar }}
  readinessProbe:
    {{- include "visiongate.tritonProbe" (dict "isSidecar" $isSidecar "path" "/v2/health/ready") | nindent 4 }}
    periodSeconds: 5
    failureThreshold: 2
    timeoutSeconds: 5
  {{- if gt (int $triton.preStopSeconds) 0 }}
  lifecycle:
    preStop:
      exec:
        command: [sleep, {{ $triton.preStopSeconds | quote }}]
  {{- end }}
  {{- end }}
  resources:
    {{- include "visiongate.tritonResources" . | nindent 4 }}
  {{- with $triton.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    {{- if not (include "visiongate.isBucket" .) }}
    {{- include "visiongate.modelMount" . | nindent 4 }}
    {{- end }}
    - name: triton-tmp
      mountPath: /tmp
    - name: triton-shm
      mountPath: /dev/shm
    {{- with $triton.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* A sidecar listens on loopback, where the kubelet cannot ask it: its own curl does. */}}
{{- define "visiongate.tritonProbe" -}}
{{- if .isSidecar -}}
exec:
  command: [curl, --fail, --silent, --show-error, --noproxy, "*", "http://127.0.0.1:8000{{ .path }}"]
{{- else -}}
httpGet:
  path: {{ .path }}
  port: triton-http
{{- end }}
{{- end -}}

{{- define "visiongate.tritonResources" -}}
{{- $triton := .Values.triton -}}
{{- $resources := deepCopy $triton.resources -}}
{{- if gt (int $triton.gpu.count) 0 -}}
{{- $limits := merge (dict $triton.gpu.resource (int $triton.gpu.count)) (default dict $resources.limits) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{- if $triton.resourceClaims -}}
{{- $claims := list -}}
{{- range $triton.resourceClaims -}}{{- $claims = append $claims (dict "name" .name) -}}{{- end -}}
{{- $_ := set $resources "claims" $claims -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- define "visiongate.tritonVolumes" -}}
- name: triton-tmp
  emptyDir:
    sizeLimit: {{ .Values.triton.tmpSize }}
- name: triton-shm
  emptyDir:
    medium: Memory
    sizeLimit: {{ .Values.triton.shmSize }}
{{- with .Values.triton.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* On which nodes pods with Triton's GPU run: of Triton's own Deployment, and of an export for it. */}}
{{- define "visiongate.tritonPlacement" -}}
{{- $triton := .Values.triton -}}
{{- with $triton.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with $triton.resourceClaims }}
resourceClaims:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $triton.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $triton.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
