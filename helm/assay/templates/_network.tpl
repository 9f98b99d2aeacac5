{{/* Ports of a rule: `ports` numbers, TCP. */}}
{{- define "assay.tcp" -}}
{{- $ports := list -}}
{{- range .ports -}}{{- $ports = append $ports (dict "protocol" "TCP" "port" (int .)) -}}{{- end -}}
{{- toYaml $ports -}}
{{- end -}}

{{/* One rule out: to `to` (anywhere where it is empty) at `ports`. */}}
{{- define "assay.egressTo" -}}
- ports:
    {{- include "assay.tcp" . | nindent 4 }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "assay.egressDns" -}}
- ports:
    {{- range .root.Values.networkPolicy.dns.ports }}
    - {protocol: UDP, port: {{ int . }}}
    - {protocol: TCP, port: {{ int . }}}
    {{- end }}
  {{- with .root.Values.networkPolicy.dns.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Port of a URL, given or by its scheme. */}}
{{- define "assay.portOfUrl" -}}
{{- $parts := urlParse . -}}
{{- regexFind "[0-9]+$" (regexFind ":[0-9]+$" $parts.host) | default (ternary "443" "80" (eq $parts.scheme "https")) -}}
{{- end -}}

{{/* Edges of one component: who may call it, and whom it calls. */}}
{{- define "assay.networkPolicy" -}}
{{- if and .root.Values.networkPolicy.enabled (include "assay.enabled" .) -}}
{{- $policy := .root.Values.networkPolicy -}}
{{- $facts := .root.Files.Get "files/components.yaml" | fromYaml -}}
{{- $peers := concat $policy.clients $policy.gateway -}}
{{- range $caller, $its := $facts -}}
{{- if and (has $.name $its.calls) (include "assay.enabled" (dict "root" $.root "name" $caller)) -}}
{{- $peers = append $peers (dict "podSelector" (dict "matchLabels" (include "assay.selector" (dict "root" $.root "name" $caller) | fromYaml))) -}}
{{- end -}}
{{- end -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "assay.metadata" . | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "assay.selector" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
    {{- with $peers }}
    - ports:
        - {protocol: TCP, port: 50051}
        {{- if and (eq $.name "reward") $.c.http.enabled }}
        - {protocol: TCP, port: 8080}
        {{- end }}
      from:
        {{- toYaml . | nindent 8 }}
    {{- end }}
    {{- with $policy.prometheus }}
    - ports:
        - {protocol: TCP, port: 9090}
      from:
        {{- toYaml . | nindent 8 }}
    {{- end }}
    {{- with .c.networkPolicy.extraIngress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  egress:
    {{- include "assay.egressDns" . | nindent 4 }}
    {{- range .facts.calls }}
    {{- if include "assay.enabled" (dict "root" $.root "name" .) }}
    {{- $peer := dict "podSelector" (dict "matchLabels" (include "assay.selector" (dict "root" $.root "name" .) | fromYaml)) }}
    {{- include "assay.egressTo" (dict "ports" (list 50051) "to" (list $peer)) | nindent 4 }}
    {{- end }}
    {{- end }}
    {{- with include "assay.egressOutside" . | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with .c.networkPolicy.extraEgress }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
{{- end -}}

{{/* Rules out to what is not of the release: Kafka, the database, the trace collector, generation servers, stores. */}}
{{- define "assay.egressOutside" -}}
{{- $policy := .root.Values.networkPolicy -}}
{{- if ne .root.Values.kafka.mode "none" }}
{{- $to := $policy.kafka.to }}
{{- if and (not $to) (eq .root.Values.kafka.mode "strimzi") }}
{{- $to = list (dict "podSelector" (dict "matchLabels" (dict "strimzi.io/cluster" .root.Values.kafka.strimzi.cluster))) }}
{{- end }}
{{ include "assay.egressTo" (dict "ports" (include "assay.kafkaPorts" . | fromYamlArray) "to" $to) }}
{{- end }}
{{- if and .facts.jobs .root.Values.database.existingSecret }}
{{ include "assay.egressTo" $policy.database }}
{{- end }}
{{- if (merge (deepCopy .c.settings) .root.Values.settings).otlp_endpoint }}
{{ include "assay.egressTo" $policy.otlp }}
{{- end }}
{{- if has .name (list "policy" "reward") }}
{{- $ports := $policy.generation.ports }}
{{- if and (not $ports) (eq .name "policy") (eq .root.Values.generation.mode "external") }}
{{- $ports = list (include "assay.portOfUrl" .root.Values.generation.external.url) }}
{{- end }}
{{- if $ports }}
{{ include "assay.egressTo" (dict "ports" $ports "to" $policy.generation.to) }}
{{- end }}
{{- end }}
{{- if $policy.storage.enabled }}
{{ include "assay.egressTo" $policy.storage }}
{{- end }}
{{- end -}}
