{{/* Where a component's pods may run. Components with a device get the labels and tolerations of its nodes on top. */}}
{{- define "assay.placement" -}}
{{- $placement := .c.placement -}}
{{- $accelerator := .root.Values.accelerator -}}
{{- $gpu := include "assay.accelerated" . -}}
{{- $selector := $placement.nodeSelector -}}
{{- $tolerations := $placement.tolerations -}}
{{- $runtime := $placement.runtimeClassName -}}
{{- if $gpu -}}
{{- $selector = merge (deepCopy $selector) $accelerator.nodeSelector -}}
{{- $tolerations = concat $tolerations $accelerator.tolerations | uniq -}}
{{- $runtime = $runtime | default $accelerator.runtimeClassName -}}
{{- end -}}
{{- with $selector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $placement.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $placement.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $runtime }}
runtimeClassName: {{ . }}
{{- end }}
{{- $constraints := list }}
{{- range $placement.topologySpreadConstraints }}
{{- $own := dict "matchLabels" (include "assay.selector" $ | fromYaml) }}
{{- $constraints = append $constraints (merge (deepCopy .) (dict "labelSelector" $own)) }}
{{- end }}
{{- if ne $placement.spread "none" }}
{{- $when := ternary "DoNotSchedule" "ScheduleAnyway" (eq $placement.spread "hard") }}
{{- $own := dict "matchLabels" (include "assay.selector" . | fromYaml) }}
{{- $constraints = append $constraints (dict "maxSkew" 1 "topologyKey" "kubernetes.io/hostname" "whenUnsatisfiable" $when "labelSelector" $own) }}
{{- end }}
{{- with $constraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Requests and limits, with the devices: by the resource's name, or as a claim of the pod. */}}
{{- define "assay.resources" -}}
{{- $resources := deepCopy .c.resources -}}
{{- if include "assay.accelerated" . -}}
{{- if .root.Values.accelerator.dra.enabled -}}
{{- $_ := set $resources "claims" (list (dict "name" "devices")) -}}
{{- else -}}
{{- $device := dict .root.Values.accelerator.resourceName (int .c.accelerator.count) -}}
{{- $_ := set $resources "limits" (merge (deepCopy ($resources.limits | default dict)) $device) -}}
{{- $_ := set $resources "requests" (merge (deepCopy ($resources.requests | default dict)) $device) -}}
{{- end -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}
