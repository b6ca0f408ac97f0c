{{/* Where the model repository comes from. Volumes are called "models", whatever they are. */}}

{{/* Triton's --model-repository. */}}
{{- define "visiongate.repository" -}}
{{- $models := .Values.models -}}
{{- if eq $models.source "s3" -}}
{{- $bucket := include "visiongate.required" (list "models.s3.bucket: models.source s3 needs it" $models.s3.bucket) -}}
s3://{{ with $models.s3.endpoint }}{{ . }}/{{ end }}{{ $bucket }}{{ with $models.s3.prefix }}/{{ trimAll "/" . }}{{ end }}
{{- else if eq $models.source "gcs" -}}
{{- $bucket := include "visiongate.required" (list "models.gcs.bucket: models.source gcs needs it" $models.gcs.bucket) -}}
gs://{{ $bucket }}{{ with $models.gcs.prefix }}/{{ trimAll "/" . }}{{ end }}
{{- else -}}
/models
{{- end -}}
{{- end -}}

{{/* "true" where Triton reads a bucket. */}}
{{- define "visiongate.isBucket" -}}
{{- if has .Values.models.source (list "s3" "gcs") }}true{{ end -}}
{{- end -}}

{{/* The volume with the repository, or, for the gateway and a bucket, the one that tokenizers are copied to. */}}
{{- define "visiongate.modelVolume" -}}
{{- $models := .Values.models -}}
- name: models
{{- if eq $models.source "image" }}
  {{- if semverCompare "<1.33-0" .Capabilities.KubeVersion.Version }}
  {{- include "visiongate.refuse" (printf "models.source: image needs Kubernetes 1.33, this is %s; initImage works with older ones" .Capabilities.KubeVersion.Version) }}
  {{- end }}
  image:
    reference: {{ include "visiongate.image" (dict "root" . "image" $models.image "own" true) }}
    pullPolicy: {{ $models.image.pullPolicy }}
{{- else if eq $models.source "pvc" }}
  persistentVolumeClaim:
    claimName: {{ include "visiongate.modelClaim" . }}
{{- else if eq $models.source "hostPath" }}
  hostPath:
    path: {{ include "visiongate.required" (list "models.hostPath.path: models.source hostPath needs it" $models.hostPath.path) }}
    type: Directory
{{- else }}
  emptyDir:
    sizeLimit: {{ $models.copySize }}
{{- end }}
{{- end -}}

{{- define "visiongate.modelClaim" -}}
{{- default (printf "%s-models" (include "visiongate.fullname" .)) .Values.models.pvc.existingClaim -}}
{{- end -}}

{{/* The mount of that volume. */}}
{{- define "visiongate.modelMount" -}}
{{- $models := .Values.models -}}
- name: models
  mountPath: /models
  readOnly: true
{{- if eq $models.source "image" }}
  subPath: models
{{- else if and (eq $models.source "pvc") $models.pvc.subPath }}
  subPath: {{ $models.pvc.subPath }}
{{- end }}
{{- end -}}

{{/* The init container that fills the volume, if one has to: (dict "root" $ "securityContext" … "component" "gateway").
A gateway without Triton in its pod needs the tokenizers alone. */}}
{{- define "visiongate.modelCopy" -}}
{{- $models := .root.Values.models -}}
{{- if eq $models.source "initImage" -}}
- name: copy-models
  image: {{ include "visiongate.image" (dict "root" .root "image" $models.image "own" true) }}
  imagePullPolicy: {{ $models.image.pullPolicy }}
  {{- if and (eq .component "gateway") (ne .root.Values.triton.mode "sidecar") }}
  command:
    - /bin/sh
    - -ec
    - cd /models; for file in */tokenizer.json; do mkdir -p "/copy/${file%/*}"; cp "$file" "/copy/$file"; done
  {{- else }}
  command: [cp, -R, /models/., /copy]
  {{- end }}
  resources:
    requests: {cpu: 100m, memory: 64Mi}
  {{- with .securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - name: models
      mountPath: /copy
{{- end -}}
{{- end -}}

{{/* The init container that copies the tokenizers of a bucket to the gateway. */}}
{{- define "visiongate.tokenizerCopy" -}}
{{- $models := .Values.models -}}
{{- $copier := $models.copier.image -}}
- name: copy-tokenizers
  image: {{ include "visiongate.image" (dict "root" . "image" $copier) }}
  imagePullPolicy: {{ $copier.pullPolicy }}
  command:
    - rclone
    - copy
    {{- if eq $models.source "s3" }}
    {{- $provider := ternary "Other" "AWS" (ne $models.s3.endpoint "") }}
    {{- $options := list (printf "provider=%s" $provider) "env_auth=true" }}
    {{- with $models.s3.region }}{{ $options = append $options (printf "region=%s" .) }}{{ end }}
    {{- with $models.s3.endpoint }}{{ $options = append $options (printf "endpoint=%q" .) }}{{ end }}
    - {{ printf ":s3,%s:%s/%s" (join "," $options) $models.s3.bucket (trimAll "/" $models.s3.prefix) | quote }}
    {{- else }}
    - {{ printf ":gcs,env_auth=true,bucket_policy_only=true:%s/%s" $models.gcs.bucket (trimAll "/" $models.gcs.prefix) | quote }}
    {{- end }}
    - /models
    - --include=/*/tokenizer.json
    # Not there: rclone then keeps nothing in the home directory, which cannot be written.
    - --config=/tmp/rclone.conf
    - --cache-dir=/tmp
  resources:
    requests: {cpu: 100m, memory: 64Mi}
  {{- with .Values.gateway.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    - name: models
      mountPath: /models
    - name: tmp
      mountPath: /tmp
{{- end -}}

{{/* The file that an export leaves in the claim when all is there. Another image or other arguments have another. */}}
{{- define "visiongate.exportMarker" -}}
{{- $export := .Values.models.export -}}
{{- $image := include "visiongate.image" (dict "root" . "image" $export.image "own" true) -}}
/models/.exported-{{ printf "%s %s" $image (toJson $export.args) | sha256sum | trunc 12 }}
{{- end -}}

{{/* The init container of Triton that waits for the export. */}}
{{- define "visiongate.exportWait" -}}
- name: wait-for-export
  image: {{ include "visiongate.image" (dict "root" . "image" .Values.triton.image) }}
  imagePullPolicy: {{ .Values.triton.image.pullPolicy }}
  command:
    - /bin/sh
    - -c
    - 'until [ -e "$0" ]; do echo "waiting for the export to write $0"; sleep 10; done'
    - {{ include "visiongate.exportMarker" . }}
  resources:
    requests: {cpu: 10m, memory: 16Mi}
  {{- with .Values.triton.securityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
    {{- include "visiongate.modelMount" . | nindent 4 }}
{{- end -}}
