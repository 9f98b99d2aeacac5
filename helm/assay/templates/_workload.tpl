{{/* Deployment or StatefulSet, as the component's facts say. */}}
{{- define "assay.workload" -}}
{{- if include "assay.enabled" . -}}
{{- include "assay.checkComponent" . -}}
apiVersion: apps/v1
kind: {{ .facts.workload }}
metadata:
  {{- include "assay.metadata" . | nindent 2 }}
spec:
  {{- if not (include "assay.autoscaled" .) }}
  replicas: {{ int .c.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  selector:
    matchLabels:
      {{- include "assay.selector" . | nindent 6 }}
  {{- if eq .facts.workload "Deployment" }}
  progressDeadlineSeconds: {{ add (int .c.probes.startupSeconds) 300 }}
  strategy:
    {{- include "assay.strategy" . | nindent 4 }}
  {{- else }}
  serviceName: {{ include "assay.name" . }}-headless
  podManagementPolicy: Parallel
  {{- if and .c.persistence.enabled (not .c.persistence.existingClaim) }}
  persistentVolumeClaimRetentionPolicy:
    whenDeleted: {{ .c.persistence.whenDeleted }}
    whenScaled: Retain
  volumeClaimTemplates:
    - apiVersion: v1
      kind: PersistentVolumeClaim
      metadata:
        name: data
        labels:
          {{- include "assay.selector" . | nindent 10 }}
      spec:
        {{- include "assay.claimSpec" (dict "root" .root "claim" .c.persistence "accessModes" (list "ReadWriteOnce")) | nindent 8 }}
  {{- end }}
  {{- end }}
  template:
    {{- include "assay.podTemplate" . | nindent 4 }}
{{- end -}}
{{- end -}}

{{/*
How a Deployment's pods are replaced. Where a pod holds a device or a volume that its successor needs, it must go first, or both wait
for ever; elsewhere its successor must be ready first.
*/}}
{{- define "assay.strategy" -}}
{{- if .c.strategy -}}
{{- toYaml .c.strategy -}}
{{- else if or (include "assay.accelerated" .) .c.persistence.enabled -}}
type: RollingUpdate
rollingUpdate: {maxSurge: 0, maxUnavailable: 1}
{{- else -}}
type: RollingUpdate
rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
{{- end -}}
{{- end -}}

{{- define "assay.claim" -}}
{{- if include "assay.enabled" . -}}
{{- if and (eq .facts.workload "Deployment") .c.persistence.enabled (not .c.persistence.existingClaim) -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  {{- $keep := ternary (dict "helm.sh/resource-policy" "keep") dict (eq .c.persistence.whenDeleted "Retain") }}
  {{- include "assay.metadata" (merge (dict "object" (printf "%s-data" (include "assay.name" .)) "annotations" $keep) .) | nindent 2 }}
spec:
  {{- include "assay.claimSpec" (dict "root" .root "claim" .c.persistence "accessModes" (list "ReadWriteOnce")) | nindent 2 }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "assay.serviceAccount" -}}
{{- if include "assay.enabled" . -}}
{{- if .c.serviceAccount.create -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "assay.metadata" (merge (dict "object" (include "assay.serviceAccountName" .) "annotations" .c.serviceAccount.annotations) .) | nindent 2 }}
automountServiceAccountToken: false
{{- end -}}
{{- end -}}
{{- end -}}

{{/* One Service with an address of its own, for gateways, and one without, which gives clients that balance themselves every pod. */}}
{{- define "assay.services" -}}
{{- if include "assay.enabled" . -}}
{{- range $suffix := list "" "-headless" }}
---
apiVersion: v1
kind: Service
metadata:
  {{- $headless := ne $suffix "" }}
  {{- $more := dict "object" (printf "%s%s" (include "assay.name" $) $suffix) "annotations" $.c.service.annotations }}
  {{- $_ := set $more "labels" (dict "assay/headless" (toString $headless)) }}
  {{- include "assay.metadata" (merge $more $) | nindent 2 }}
spec:
  type: ClusterIP
  {{- if $headless }}
  clusterIP: None
  {{- end }}
  selector:
    {{- include "assay.selector" $ | nindent 4 }}
  ports:
    - {name: grpc, port: 50051, targetPort: grpc{{ if not $.root.Values.tls.enabled }}, appProtocol: kubernetes.io/h2c{{ end }}}
    - {name: metrics, port: 9090, targetPort: metrics}
    {{- if and (eq $.name "reward") $.c.http.enabled }}
    - {name: http, port: 8080, targetPort: http}
    {{- end }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "assay.pdb" -}}
{{- if include "assay.enabled" . -}}
{{- $least := ternary (int .c.autoscaling.minReplicas) (int .c.replicas) (not (empty (include "assay.autoscaled" .))) -}}
{{- if and .c.pdb.enabled (gt $least 1) -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "assay.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ .c.pdb.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "assay.selector" . | nindent 6 }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "assay.resourceClaimTemplate" -}}
{{- if include "assay.enabled" . -}}
{{- if and (include "assay.accelerated" .) .root.Values.accelerator.dra.enabled -}}
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata:
  {{- include "assay.metadata" (merge (dict "object" (printf "%s-devices" (include "assay.name" .))) .) | nindent 2 }}
spec:
  spec:
    devices:
      requests:
        - name: devices
          exactly:
            deviceClassName: {{ .root.Values.accelerator.dra.deviceClassName }}
            allocationMode: ExactCount
            count: {{ int .c.accelerator.count }}
            {{- with .root.Values.accelerator.dra.selectors }}
            selectors:
              {{- range . }}
              - cel:
                  expression: {{ . | quote }}
              {{- end }}
            {{- end }}
{{- end -}}
{{- end -}}
{{- end -}}
