{{/* Adds to the context of a component: `c`, its values over the defaults, and `facts`, what is true of it whatever the values say. */}}
{{- define "assay.load" -}}
{{- if not (hasKey . "c") -}}
{{- $_ := set . "c" (mergeOverwrite (deepCopy .root.Values.defaults) (deepCopy (index .root.Values .name))) -}}
{{- $_ := set . "facts" (index (.root.Files.Get "files/components.yaml" | fromYaml) .name) -}}
{{- end -}}
{{- end -}}

{{/* "true" where the component is run. */}}
{{- define "assay.enabled" -}}
{{- include "assay.load" . -}}
{{- if .c.enabled -}}true{{- end -}}
{{- end -}}

{{/* "true" where an autoscaler says how many pods there are. */}}
{{- define "assay.autoscaled" -}}
{{- if and .facts.lag (or .c.autoscaling.hpa.enabled .c.autoscaling.keda.enabled) -}}true{{- end -}}
{{- end -}}

{{/* Most pods the component may have at once. */}}
{{- define "assay.mostReplicas" -}}
{{- if include "assay.autoscaled" . -}}{{ int .c.autoscaling.maxReplicas }}{{- else -}}{{ int .c.replicas }}{{- end -}}
{{- end -}}

{{/* "true" where the pods ask for a device. */}}
{{- define "assay.accelerated" -}}
{{- if .c.accelerator.enabled -}}true{{- end -}}
{{- end -}}

{{/* Image reference: registry, repository, digest or tag. `variant` is put after the tag. */}}
{{- define "assay.image" -}}
{{- $registry := coalesce .root.Values.global.imageRegistry .c.image.registry -}}
{{- $repository := ternary (printf "%s/%s" $registry .c.image.repository) .c.image.repository (not (empty $registry)) -}}
{{- if .c.image.digest -}}
{{- printf "%s@%s" $repository .c.image.digest -}}
{{- else -}}
{{- $variant := ternary .root.Values.accelerator.imageTagSuffix "" (and .c.accelerator.enabled (empty .c.image.tag)) -}}
{{- printf "%s:%s%s" $repository (default .root.Chart.AppVersion .c.image.tag) $variant -}}
{{- end -}}
{{- end -}}

{{/* Seconds of settings.drain_seconds in force for the component. */}}
{{- define "assay.drainSeconds" -}}
{{- $common := .root.Values.settings.drain_seconds | default 30 -}}
{{- ternary .c.settings.drain_seconds $common (hasKey .c.settings "drain_seconds") | float64 | ceil | int -}}
{{- end -}}

{{- define "assay.graceSeconds" -}}
{{- add (int .root.Values.drain.preStopSeconds) (int (include "assay.drainSeconds" .)) (int .root.Values.drain.marginSeconds) -}}
{{- end -}}

{{/* A value as a program reads it from the environment: whole numbers without an exponent, maps as JSON. */}}
{{- define "assay.asText" -}}
{{- if kindIs "map" . -}}{{ toJson . }}
{{- else if kindIs "float64" . -}}{{ ternary (printf "%d" (int64 .)) (toString .) (eq (floor .) .) }}
{{- else -}}{{ toString . }}
{{- end -}}
{{- end -}}

{{/* Partitions of a topic: the table's, unless the values say otherwise. */}}
{{- define "assay.partitions" -}}
{{- $said := index .root.Values.kafka.partitions .topic -}}
{{- if $said -}}{{ int $said }}
{{- else -}}
{{- range (.root.Files.Get "files/kafka.yaml" | fromYaml).topics -}}{{- if eq .name $.topic -}}{{ int .partitions }}{{- end -}}{{- end -}}
{{- end -}}
{{- end -}}
