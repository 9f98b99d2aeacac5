{{/* Certificate of one component: server to its callers, client to its peers. Names are those that peers and gateways call it by. */}}
{{- define "assay.certificate" -}}
{{- $tls := .root.Values.tls -}}
{{- if and $tls.enabled (eq $tls.mode "certManager") (include "assay.enabled" .) -}}
{{- $issuer := $tls.certManager.issuerRef | default (dict "name" (printf "%s-ca" (include "assay.fullname" .)) "kind" "Issuer") -}}
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  {{- include "assay.metadata" . | nindent 2 }}
spec:
  secretName: {{ include "assay.tlsSecret" . }}
  duration: {{ $tls.certManager.duration }}
  renewBefore: {{ $tls.certManager.renewBefore }}
  commonName: {{ include "assay.name" . }}
  usages: [digital signature, key encipherment, server auth, client auth]
  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Always}
  dnsNames:
    {{- range $service := list (include "assay.name" .) (printf "%s-headless" (include "assay.name" .)) }}
    {{- range $domain := list "" (printf ".%s" $.root.Release.Namespace) (printf ".%s.svc" $.root.Release.Namespace) (printf ".%s.svc.%s" $.root.Release.Namespace $.root.Values.clusterDomain) }}
    - {{ $service }}{{ $domain }}
    {{- end }}
    {{- end }}
  issuerRef:
    {{- toYaml $issuer | nindent 4 }}
{{- end -}}
{{- end -}}
