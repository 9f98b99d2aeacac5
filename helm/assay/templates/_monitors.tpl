{{- define "assay.monitor" -}}
{{- $monitoring := .root.Values.monitoring -}}
{{- if and (ne $monitoring.monitor "none") (include "assay.enabled" .) -}}
apiVersion: monitoring.coreos.com/v1
kind: {{ $monitoring.monitor }}
metadata:
  {{- include "assay.metadata" (merge (dict "labels" $monitoring.additionalLabels) .) | nindent 2 }}
spec:
  selector:
    matchLabels:
      {{- include "assay.selector" . | nindent 6 }}
      {{- if eq $monitoring.monitor "ServiceMonitor" }}
      assay/headless: "false"
      {{- end }}
  namespaceSelector:
    matchNames: [{{ .root.Release.Namespace }}]
  {{ ternary "endpoints" "podMetricsEndpoints" (eq $monitoring.monitor "ServiceMonitor") }}:
    - port: metrics
      interval: {{ $monitoring.interval }}
      scrapeTimeout: {{ $monitoring.scrapeTimeout }}
      {{- with $monitoring.relabelings }}
      relabelings:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $monitoring.metricRelabelings }}
      metricRelabelings:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}
{{- end -}}
