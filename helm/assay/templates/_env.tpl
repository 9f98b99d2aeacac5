{{/* Environment of a component's container. The settings come last but for `extraEnv`: they are the services' own, by name. */}}
{{- define "assay.env" -}}
- name: ASSAY_INSTANCE
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- $address := list "ASSAY_GRPC_HOST" "ASSAY_METRICS_HOST" }}
{{- if and (eq .name "reward") .c.http.enabled }}
{{- $address = append $address "ASSAY_REWARD_HTTP_HOST" }}
{{- end }}
{{- range $address }}
- name: {{ . }}
  {{- if eq $.root.Values.bindAddress "podIP" }}
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
  {{- else }}
  value: {{ $.root.Values.bindAddress | quote }}
  {{- end }}
{{- end }}
- name: ASSAY_GRPC_PORT
  value: "50051"
- name: ASSAY_HEALTH_PORT
  value: "50052"
- name: ASSAY_METRICS_PORT
  value: "9090"
{{- if eq .name "reward" }}
- name: ASSAY_REWARD_HTTP_PORT
  value: {{ ternary "8080" "" .c.http.enabled | quote }}
{{- end }}
- name: ASSAY_DATA_DIR
  value: /var/lib/assay
- name: HOME
  value: /tmp/home
- name: OMP_WAIT_POLICY
  value: PASSIVE
- name: HF_HUB_DISABLE_TELEMETRY
  value: "1"
{{- include "assay.modelEnv" . }}
{{- include "assay.kafkaEnv" . }}
{{- if and .facts.jobs .root.Values.database.existingSecret }}
- name: ASSAY_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ .root.Values.database.existingSecret }}
      key: {{ .root.Values.database.key }}
{{- end }}
{{- if .root.Values.tls.enabled }}
- name: ASSAY_TLS_DIR
  value: /etc/assay/tls
{{- end }}
{{- range .facts.calls }}
{{- if include "assay.enabled" (dict "root" $.root "name" .) }}
- name: ASSAY_{{ upper . }}_TARGET
  value: {{ include "assay.target" (dict "root" $.root "name" .) }}
{{- end }}
{{- end }}
{{- include "assay.generationEnv" . }}
{{- $settings := merge (deepCopy .c.settings) .root.Values.settings }}
{{- range $name := keys $settings | sortAlpha }}
{{- $value := index $settings $name }}
{{- if not (kindIs "invalid" $value) }}
- name: ASSAY_{{ upper $name }}
  value: {{ include "assay.asText" $value | quote }}
{{- end }}
{{- end }}
{{- with .c.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Where models are and which are loaded at the start. */}}
{{- define "assay.modelEnv" -}}
{{- if .facts.models }}
- name: HF_HOME
  value: {{ ternary "/tmp/home/hub" "/models/hub" .root.Values.modelCache.enabled }}
{{- if .root.Values.modelCache.enabled }}
- name: HF_HUB_OFFLINE
  value: "1"
{{- end }}
{{- if include "assay.accelerated" . }}
- name: TRITON_CACHE_DIR
  value: /tmp/home/triton
- name: TORCHINDUCTOR_CACHE_DIR
  value: /tmp/home/inductor
{{- end }}
{{- end }}
{{- if hasKey .c "preload" }}
{{- $preload := dict }}
{{- range $name, $uri := .c.preload }}
{{- $_ := set $preload $name (include "assay.modelUri" (dict "root" $.root "uri" $uri "where" (printf "%s.preload.%s" $.name $name))) }}
{{- end }}
{{- if and (eq .name "policy") (eq .root.Values.generation.mode "external") }}
{{- $_ := set $preload .root.Values.generation.external.name .root.Values.generation.external.url }}
{{- end }}
{{- if $preload }}
- name: ASSAY_{{ upper .name }}_PRELOAD
  value: {{ toJson $preload | quote }}
{{- end }}
{{- end }}
{{- if and (eq .name "policy") (include "assay.accelerated" .) (not (hasKey .c.settings "policy_device")) }}
- name: ASSAY_POLICY_DEVICE
  value: cuda:0
{{- end }}
{{- end -}}

{{/* cache://<name> as the folder that the download Job makes; other URIs as they are. */}}
{{- define "assay.modelUri" -}}
{{- if hasPrefix "cache://" .uri -}}
{{- $wanted := trimPrefix "cache://" .uri -}}
{{- $folder := "" -}}
{{- range .root.Values.modelCache.models -}}{{- if eq .name $wanted -}}{{- $folder = printf "/models/%s/%s" .name .revision -}}{{- end -}}{{- end -}}
{{- if not (and .root.Values.modelCache.enabled $folder) -}}
{{- fail (printf "%s is %s, but modelCache.models has no model named %s, or modelCache.enabled is false" .where .uri $wanted) -}}
{{- end -}}
{{- $folder -}}
{{- else -}}{{ .uri }}{{- end -}}
{{- end -}}

{{- define "assay.generationEnv" -}}
{{- $external := .root.Values.generation.external }}
{{- if and (eq .name "policy") $external.existingSecret }}
{{- range $variable, $key := dict "ASSAY_POLICY_OPENAI_API_KEY" $external.openaiKey "ASSAY_POLICY_TGI_TOKEN" $external.tgiKey }}
{{- if $key }}
- name: {{ $variable }}
  valueFrom:
    secretKeyRef:
      name: {{ $external.existingSecret }}
      key: {{ $key }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
