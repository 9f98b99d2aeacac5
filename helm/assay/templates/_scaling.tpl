{{- define "assay.scaleTarget" -}}
apiVersion: apps/v1
kind: {{ .facts.workload }}
name: {{ include "assay.name" . }}
{{- end -}}

{{- define "assay.hpa" -}}
{{- if include "assay.enabled" . -}}
{{- $hpa := .c.autoscaling.hpa -}}
{{- if and .facts.lag $hpa.enabled -}}
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  {{- include "assay.metadata" . | nindent 2 }}
spec:
  scaleTargetRef:
    {{- include "assay.scaleTarget" . | nindent 4 }}
  minReplicas: {{ int .c.autoscaling.minReplicas }}
  maxReplicas: {{ int .c.autoscaling.maxReplicas }}
  metrics:
    {{- with $hpa.metrics }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- if and (eq .name "reward") $hpa.queuedTokens }}
    - type: Pods
      pods:
        metric: {name: assay_reward_queue_tokens}
        target: {type: AverageValue, averageValue: {{ int64 $hpa.queuedTokens | quote }}}
    {{- end }}
    {{- if $hpa.targetCPUUtilizationPercentage }}
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ int $hpa.targetCPUUtilizationPercentage }}}
    {{- end }}
  {{- with $hpa.behavior }}
  behavior:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "assay.scaledObject" -}}
{{- if include "assay.enabled" . -}}
{{- $keda := .c.autoscaling.keda -}}
{{- if and .facts.lag $keda.enabled -}}
{{- include "assay.checkComponent" . -}}
{{- $kafka := include "assay.kafka" . | fromYaml -}}
{{- $authenticated := or (hasPrefix "SASL" $kafka.protocol) (hasSuffix "SSL" $kafka.protocol) -}}
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  {{- include "assay.metadata" . | nindent 2 }}
spec:
  scaleTargetRef:
    {{- include "assay.scaleTarget" . | nindent 4 }}
  minReplicaCount: {{ int .c.autoscaling.minReplicas }}
  maxReplicaCount: {{ int .c.autoscaling.maxReplicas }}
  pollingInterval: {{ int $keda.pollingInterval }}
  cooldownPeriod: {{ max (int $keda.cooldownPeriod) (int .c.probes.startupSeconds) }}
  triggers:
    - type: kafka
      metadata:
        bootstrapServers: {{ $kafka.bootstrap | quote }}
        consumerGroup: {{ .facts.lag.group }}
        topic: {{ .facts.lag.topic }}
        lagThreshold: {{ int64 $keda.lagThreshold | quote }}
        activationLagThreshold: {{ int64 $keda.activationLagThreshold | quote }}
        offsetResetPolicy: earliest
        limitToPartitionsWithLag: "true"
        {{- if hasPrefix "SASL" $kafka.protocol }}
        sasl: {{ index (dict "SCRAM-SHA-512" "scram_sha512" "SCRAM-SHA-256" "scram_sha256" "PLAIN" "plaintext") $kafka.mechanism }}
        {{- end }}
        {{- if hasSuffix "SSL" $kafka.protocol }}
        tls: enable
        {{- end }}
      {{- if $authenticated }}
      authenticationRef:
        name: {{ include "assay.name" . }}-kafka
      {{- end }}
    {{- if and (eq .name "reward") $keda.prometheus.serverAddress }}
    - type: prometheus
      metadata:
        serverAddress: {{ $keda.prometheus.serverAddress | quote }}
        query: {{ printf "sum(assay_reward_queue_tokens{namespace=%q,service=~%q})" .root.Release.Namespace (printf "%s.*" (include "assay.name" .)) | quote }}
        threshold: {{ int64 $keda.prometheus.queuedTokens | quote }}
    {{- end }}
    {{- with $keda.extraTriggers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- if $authenticated }}
---
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata:
  {{- include "assay.metadata" (merge (dict "object" (printf "%s-kafka" (include "assay.name" .))) .) | nindent 2 }}
spec:
  {{- if $kafka.username }}
  env:
    - {parameter: username, name: ASSAY_KAFKA_USERNAME, containerName: {{ .name }}}
  {{- end }}
  secretTargetRef:
    {{- if hasPrefix "SASL" $kafka.protocol }}
    {{- if not $kafka.username }}
    - {parameter: username, name: {{ $kafka.userSecret }}, key: username}
    {{- end }}
    - {parameter: password, name: {{ $kafka.userSecret }}, key: password}
    {{- else if $kafka.userSecret }}
    - {parameter: cert, name: {{ $kafka.userSecret }}, key: user.crt}
    - {parameter: key, name: {{ $kafka.userSecret }}, key: user.key}
    {{- end }}
    {{- with $kafka.caSecret }}
    - {parameter: ca, name: {{ . }}, key: ca.crt}
    {{- end }}
{{- end }}
{{- end -}}
{{- end -}}
{{- end -}}
