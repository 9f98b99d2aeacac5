{{/* How a component reaches Kafka: facts of the mode as YAML: bootstrap, protocol, mechanism, userSecret, caSecret, username. */}}
{{- define "assay.kafka" -}}
{{- $kafka := .root.Values.kafka -}}
{{- if eq $kafka.mode "external" -}}
{{- $secret := index $kafka.external.users .name | default $kafka.external.existingSecret -}}
bootstrap: {{ $kafka.external.bootstrap | quote }}
protocol: {{ $kafka.external.securityProtocol }}
mechanism: {{ $kafka.external.saslMechanism }}
userSecret: {{ $secret | quote }}
usernameKey: username
caSecret: {{ $kafka.external.caSecret | quote }}
{{- else if eq $kafka.mode "strimzi" -}}
bootstrap: {{ printf "%s-kafka-bootstrap.%s.svc:%d" $kafka.strimzi.cluster .root.Release.Namespace (int $kafka.strimzi.port) | quote }}
protocol: {{ ternary "SSL" "SASL_SSL" (eq $kafka.strimzi.authentication "tls") }}
mechanism: SCRAM-SHA-512
userSecret: {{ include "assay.name" . }}
username: {{ include "assay.name" . }}
caSecret: {{ printf "%s-cluster-ca-cert" $kafka.strimzi.cluster }}
{{- end -}}
{{- end -}}

{{- define "assay.kafkaEnv" -}}
{{- if ne .root.Values.kafka.mode "none" }}
{{- $kafka := include "assay.kafka" . | fromYaml }}
- name: ASSAY_KAFKA_BOOTSTRAP
  value: {{ $kafka.bootstrap | quote }}
- name: ASSAY_KAFKA_SECURITY_PROTOCOL
  value: {{ $kafka.protocol }}
{{- if .root.Values.kafka.createTopics }}
- name: ASSAY_KAFKA_CREATE_TOPICS
  value: "true"
{{- end }}
{{- if hasPrefix "SASL" $kafka.protocol }}
- name: ASSAY_KAFKA_SASL_MECHANISM
  value: {{ $kafka.mechanism }}
- name: ASSAY_KAFKA_USERNAME
  {{- if $kafka.username }}
  value: {{ $kafka.username }}
  {{- else }}
  valueFrom:
    secretKeyRef:
      name: {{ $kafka.userSecret }}
      key: {{ $kafka.usernameKey }}
  {{- end }}
- name: ASSAY_KAFKA_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ $kafka.userSecret }}
      key: password
{{- end }}
{{- if include "assay.kafkaFiles" . }}
- name: ASSAY_KAFKA_TLS_DIR
  value: /etc/assay/kafka
{{- end }}
{{- end }}
{{- end -}}

{{/* Sources of the projected volume with the brokers' CA and the client's certificate; empty where there are no such files. */}}
{{- define "assay.kafkaFiles" -}}
{{- if ne .root.Values.kafka.mode "none" }}
{{- $kafka := include "assay.kafka" . | fromYaml }}
{{- if hasSuffix "SSL" $kafka.protocol }}
{{- with $kafka.caSecret }}
- secret:
    name: {{ . }}
    items:
      - {key: ca.crt, path: ca.crt}
{{- end }}
{{- if and (eq $kafka.protocol "SSL") $kafka.userSecret }}
- secret:
    name: {{ $kafka.userSecret }}
    items:
      - {key: user.crt, path: user.crt}
      - {key: user.key, path: user.key}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Ports of the brokers, as a YAML list: what the values say, else those of the bootstrap address. */}}
{{- define "assay.kafkaPorts" -}}
{{- if .root.Values.networkPolicy.kafka.ports -}}
{{- toYaml .root.Values.networkPolicy.kafka.ports -}}
{{- else -}}
{{- $ports := list -}}
{{- range splitList "," (include "assay.kafka" . | fromYaml).bootstrap -}}
{{- $ports = append $ports (regexFind "[0-9]+$" (trim .) | int) -}}
{{- end -}}
{{- $ports | uniq | toYaml -}}
{{- end -}}
{{- end -}}
