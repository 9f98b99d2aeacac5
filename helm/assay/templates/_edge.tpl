{{- define "assay.edgeOpen" -}}
{{- if include "assay.enabled" . -}}
{{- if has .name .root.Values.edge.components -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* Secret with the edge's certificate: the one named, or the one cert-manager makes; empty without TLS. */}}
{{- define "assay.edgeSecret" -}}
{{- $tls := .root.Values.edge.tls -}}
{{- $tls.secretName | default (ternary (printf "%s-edge" (include "assay.fullname" .)) "" (not (empty $tls.issuerRef))) -}}
{{- end -}}

{{- define "assay.grpcRoute" -}}
{{- $gateway := .root.Values.edge.gateway -}}
{{- if and $gateway.enabled (include "assay.edgeOpen" .) -}}
{{- $services := .facts.services -}}
{{- if $gateway.reflection -}}
{{- $services = concat $services (list "grpc.reflection.v1.ServerReflection" "grpc.reflection.v1alpha.ServerReflection") -}}
{{- end -}}
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata:
  {{- include "assay.metadata" . | nindent 2 }}
spec:
  parentRefs:
    {{- toYaml ($gateway.parentRefs | default (list (dict "name" (include "assay.fullname" .)))) | nindent 4 }}
  hostnames: [{{ printf "%s.%s" .name .root.Values.edge.domain }}]
  rules:
    - matches:
        {{- range $services }}
        - method: {service: {{ . }}}
        {{- end }}
      backendRefs:
        - {name: {{ include "assay.name" . }}, port: 50051}
{{- end -}}
{{- end -}}

{{- define "assay.ingress" -}}
{{- $ingress := .root.Values.edge.ingress -}}
{{- if and $ingress.enabled (include "assay.edgeOpen" .) -}}
{{- $host := printf "%s.%s" .name .root.Values.edge.domain -}}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  {{- include "assay.metadata" (merge (dict "annotations" $ingress.annotations) .) | nindent 2 }}
spec:
  {{- with $ingress.className }}
  ingressClassName: {{ . }}
  {{- end }}
  {{- with include "assay.edgeSecret" . }}
  tls:
    - hosts: [{{ $host }}]
      secretName: {{ . }}
  {{- end }}
  rules:
    - host: {{ $host }}
      http:
        paths:
          - path: /
            pathType: Prefix
            backend:
              service:
                name: {{ include "assay.name" . }}
                port: {name: grpc}
{{- end -}}
{{- end -}}
