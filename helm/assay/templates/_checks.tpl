{{/* What no schema can say: rules over several values of one component. Each ends the render with what is wrong and what would be right. */}}
{{- define "assay.checkComponent" -}}
{{- $most := int (include "assay.mostReplicas" .) -}}
{{- if and .facts.jobs (gt $most 1) (not .root.Values.database.existingSecret) -}}
{{- fail (printf "%s may have %d pods, but without database.existingSecret its jobs are in SQLite, which is one pod's own; name a PostgreSQL database, or keep one pod" .name $most) -}}
{{- end -}}
{{- if and (eq .facts.workload "Deployment") .c.persistence.enabled (gt $most 1) -}}
{{- fail (printf "%s.persistence.enabled needs one pod at most, for its volume belongs to one, but there may be %d; use preload or modelCache instead" .name $most) -}}
{{- end -}}
{{- if and (include "assay.accelerated" .) .root.Values.accelerator.dra.enabled (semverCompare "<1.34-0" .root.Capabilities.KubeVersion.Version) -}}
{{- fail (printf "accelerator.dra.enabled needs Kubernetes 1.34 or later (resource.k8s.io/v1), this is %s; set it to false to ask for %s" .root.Capabilities.KubeVersion.Version .root.Values.accelerator.resourceName) -}}
{{- end -}}
{{- if and .root.Values.tls.enabled (eq .root.Values.tls.mode "existingSecrets") (not (index .root.Values.tls.secrets .name)) -}}
{{- fail (printf "tls.secrets.%s is missing: with tls.mode existingSecrets every component needs a secret with tls.crt, tls.key and ca.crt" .name) -}}
{{- end -}}
{{- if ne .root.Values.kafka.mode "none" -}}
{{- $kafka := include "assay.kafka" . | fromYaml -}}
{{- if and (hasPrefix "SASL" $kafka.protocol) (not $kafka.userSecret) -}}
{{- fail (printf "kafka.external.securityProtocol is %s, but neither kafka.external.users.%s nor kafka.external.existingSecret names a secret with username and password" $kafka.protocol .name) -}}
{{- end -}}
{{- end -}}
{{- if include "assay.autoscaled" . -}}
{{- include "assay.checkScaling" . -}}
{{- end -}}
{{- end -}}

{{- define "assay.checkScaling" -}}
{{- $scaling := .c.autoscaling -}}
{{- if and $scaling.hpa.enabled $scaling.keda.enabled -}}
{{- fail (printf "%s.autoscaling: hpa and keda would fight over the number of pods; enable one" .name) -}}
{{- end -}}
{{- if lt (int $scaling.maxReplicas) (int $scaling.minReplicas) -}}
{{- fail (printf "%s.autoscaling: maxReplicas %d is less than minReplicas %d" .name (int $scaling.maxReplicas) (int $scaling.minReplicas)) -}}
{{- end -}}
{{- if $scaling.keda.enabled -}}
{{- if eq .root.Values.kafka.mode "none" -}}
{{- fail (printf "%s.autoscaling.keda scales on the lag of a topic, but kafka.mode is none; use hpa, or set kafka.mode" .name) -}}
{{- end -}}
{{- $partitions := int (include "assay.partitions" (dict "root" .root "topic" .facts.lag.topic)) -}}
{{- if gt (int $scaling.maxReplicas) $partitions -}}
{{- fail (printf "%s.autoscaling.maxReplicas is %d, but %s has %d partitions and as many pods at most have work; lower it, or raise kafka.partitions" .name (int $scaling.maxReplicas) .facts.lag.topic $partitions) -}}
{{- end -}}
{{- else if lt (int $scaling.minReplicas) 1 -}}
{{- fail (printf "%s.autoscaling.minReplicas is 0, which a HorizontalPodAutoscaler does not do; use keda, or set it to 1" .name) -}}
{{- end -}}
{{- end -}}

{{/* Rules over values that belong to no component. */}}
{{- define "assay.checkRelease" -}}
{{- range $what := list "modelCache" "artifacts" -}}
{{- $volume := index $.root.Values $what -}}
{{- if and $volume.enabled (not $volume.existingClaim) (not (has "ReadWriteMany" $volume.accessModes)) -}}
{{- fail (printf "%s.accessModes is %s, but pods on several nodes mount the volume; take a storage class with ReadWriteMany, or name %s.existingClaim" $what (join ", " $volume.accessModes) $what) -}}
{{- end -}}
{{- end -}}
{{- $names := list -}}
{{- range .root.Values.modelCache.models -}}{{- $names = append $names .name -}}{{- end -}}
{{- if ne (len $names) (len (uniq $names)) -}}
{{- fail (printf "modelCache.models: two models have one name (%s)" (join ", " $names)) -}}
{{- end -}}
{{- $gateway := .root.Values.edge.gateway -}}
{{- if and $gateway.enabled (not $gateway.parentRefs) (not $gateway.create) -}}
{{- fail "edge.gateway.enabled needs edge.gateway.parentRefs, or edge.gateway.create: true" -}}
{{- end -}}
{{- end -}}
