{{/* Folders of Secrets in the gateway. They are no single files (subPath), whose renewal would not be seen. */}}

{{/* The Secrets by folder below /etc/visiongate, as a YAML mapping. */}}
{{- define "visiongate.secrets" -}}
{{- with .Values.apiKeys.existingSecret }}
api-keys: {{ . }}
{{- end }}
{{- with include "visiongate.imageIdSecret" . }}
image-ids: {{ . }}
{{- end }}
{{- with include "visiongate.tlsSecret" . }}
tls: {{ . }}
{{- end }}
{{- with .Values.tls.clientCa.existingSecret }}
client-ca: {{ . }}
{{- end }}
{{- end -}}

{{- define "visiongate.secretVolumes" -}}
{{- range $folder, $secret := include "visiongate.secrets" . | fromYaml }}
- name: {{ $folder }}
  secret:
    secretName: {{ $secret }}
    defaultMode: 0440
{{- end }}
{{- end -}}

{{- define "visiongate.secretMounts" -}}
{{- range $folder, $secret := include "visiongate.secrets" . | fromYaml }}
- name: {{ $folder }}
  mountPath: /etc/visiongate/{{ $folder }}
  readOnly: true
{{- end }}
{{- end -}}
