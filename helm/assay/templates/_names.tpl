{{/* Names and labels. Every helper takes a dict: `root` ($) and, where it speaks of one component, `name`. */}}

{{- define "assay.chartName" -}}
{{- default .root.Chart.Name .root.Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* The release's name where it holds the chart's, else both; short enough that every object's name fits into 63 characters. */}}
{{- define "assay.fullname" -}}
{{- if .root.Values.fullnameOverride -}}
{{- .root.Values.fullnameOverride | trunc 42 | trimSuffix "-" -}}
{{- else -}}
{{- $chart := include "assay.chartName" . -}}
{{- if contains $chart .root.Release.Name -}}
{{- .root.Release.Name | trunc 42 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .root.Release.Name $chart | trunc 42 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "assay.name" -}}
{{- printf "%s-%s" (include "assay.fullname" .) .name -}}
{{- end -}}

{{/* What selects a component's pods; never changes. */}}
{{- define "assay.selector" -}}
app.kubernetes.io/name: assay
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- if .name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}
{{- end -}}

{{- define "assay.labels" -}}
{{ include "assay.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: assay
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* metadata of an object: `object` is its name where it is not the component's own, `labels` and `annotations` come on top. */}}
{{- define "assay.metadata" -}}
name: {{ .object | default (include "assay.name" .) }}
namespace: {{ .namespace | default .root.Release.Namespace }}
labels:
  {{- include "assay.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (deepCopy (.annotations | default dict)) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "assay.serviceAccountName" -}}
{{- .c.serviceAccount.name | default (ternary (include "assay.name" .) "default" .c.serviceAccount.create) -}}
{{- end -}}

{{/* gRPC's name for all pods of a component: the headless service gives an address a pod. */}}
{{- define "assay.target" -}}
dns:///{{ include "assay.name" . }}-headless.{{ .root.Release.Namespace }}.svc:50051
{{- end -}}
