{{/* Mounts of the service's container: all that may be written, and what is only read. */}}
{{- define "assay.volumeMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: data, mountPath: /var/lib/assay}
{{- if .facts.models }}
- {name: models, mountPath: /models{{ if .root.Values.modelCache.enabled }}, readOnly: true{{ end }}}
{{- end }}
{{- if .root.Values.artifacts.enabled }}
- {name: artifacts, mountPath: /artifacts}
{{- end }}
{{- if include "assay.accelerated" . }}
- {name: shared-memory, mountPath: /dev/shm}
{{- end }}
{{- if .root.Values.tls.enabled }}
- {name: tls, mountPath: /etc/assay/tls, readOnly: true}
{{- end }}
{{- if include "assay.kafkaFiles" . }}
- {name: kafka, mountPath: /etc/assay/kafka, readOnly: true}
{{- end }}
{{- with .c.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "assay.volumes" -}}
- name: tmp
  emptyDir: {}
{{- if not .c.persistence.enabled }}
- name: data
  emptyDir:
    sizeLimit: {{ .c.persistence.podSize }}
{{- else if .c.persistence.existingClaim }}
- name: data
  persistentVolumeClaim:
    claimName: {{ .c.persistence.existingClaim }}
{{- else if ne .facts.workload "StatefulSet" }}
- name: data
  persistentVolumeClaim:
    claimName: {{ include "assay.name" . }}-data
{{- end }}
{{- if .facts.models }}
- name: models
  {{- if .root.Values.modelCache.enabled }}
  persistentVolumeClaim:
    claimName: {{ include "assay.modelClaim" . }}
    readOnly: true
  {{- else }}
  emptyDir:
    sizeLimit: {{ .root.Values.modelCache.podSize }}
  {{- end }}
{{- end }}
{{- if .root.Values.artifacts.enabled }}
- name: artifacts
  persistentVolumeClaim:
    claimName: {{ .root.Values.artifacts.existingClaim | default (printf "%s-artifacts" (include "assay.fullname" .)) }}
{{- end }}
{{- if include "assay.accelerated" . }}
- name: shared-memory
  emptyDir:
    medium: Memory
    sizeLimit: {{ .root.Values.accelerator.sharedMemory }}
{{- end }}
{{- if .root.Values.tls.enabled }}
- name: tls
  secret:
    secretName: {{ include "assay.tlsSecret" . }}
{{- end }}
{{- with include "assay.kafkaFiles" . }}
- name: kafka
  projected:
    sources:
      {{- . | nindent 6 }}
{{- end }}
{{- with .c.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "assay.modelClaim" -}}
{{- .root.Values.modelCache.existingClaim | default (printf "%s-models" (include "assay.fullname" .)) -}}
{{- end -}}

{{- define "assay.tlsSecret" -}}
{{- if eq .root.Values.tls.mode "existingSecrets" -}}
{{- index .root.Values.tls.secrets .name -}}
{{- else -}}
{{- include "assay.name" . }}-tls
{{- end -}}
{{- end -}}

{{/* spec of a claim: `claim` has accessModes, storageClass and size. */}}
{{- define "assay.claimSpec" -}}
accessModes: {{ toJson .accessModes }}
{{- with .claim.storageClass | default .root.Values.global.storageClass }}
storageClassName: {{ . | quote }}
{{- end }}
resources:
  requests:
    storage: {{ .claim.size }}
{{- end -}}
