{{/* The pod template of every service. */}}
{{- define "assay.podTemplate" -}}
{{- $service := index .facts.services 0 -}}
{{- $probes := .c.probes -}}
metadata:
  labels:
    {{- merge (include "assay.selector" . | fromYaml) .c.podLabels .root.Values.commonLabels | toYaml | nindent 4 }}
  {{- with merge (deepCopy .c.podAnnotations) .root.Values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "assay.serviceAccountName" . }}
  automountServiceAccountToken: {{ and (eq .name "training") (ne (.c.batch | default "none") "none") }}
  # A Service called assay-reward would put ASSAY_REWARD_SERVICE_HOST into the environment, which no setting is called.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "assay.graceSeconds" . }}
  securityContext:
    {{- include "assay.podSecurityContext" . | nindent 4 }}
  {{- with include "assay.imagePullSecrets" . }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with include "assay.placement" . | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if and (include "assay.accelerated" .) .root.Values.accelerator.dra.enabled }}
  resourceClaims:
    - name: devices
      resourceClaimTemplateName: {{ include "assay.name" . }}-devices
  {{- end }}
  {{- if and .facts.models .root.Values.modelCache.enabled .root.Values.modelCache.models }}
  initContainers:
    - name: wait-for-models
      image: {{ include "assay.image" . }}
      imagePullPolicy: {{ .c.image.pullPolicy }}
      command: [sh, -c]
      args:
        - |
          for model in{{ range .root.Values.modelCache.models }} {{ .name }}/{{ .revision }}{{ end }}; do
            until [ -d "/models/$model" ]; do echo "waiting for $model"; sleep 5; done
          done
      resources:
        requests: {cpu: 10m, memory: 16Mi}
        limits: {cpu: 100m, memory: 64Mi}
      securityContext:
        {{- include "assay.securityContext" . | nindent 8 }}
      volumeMounts:
        - {name: models, mountPath: /models, readOnly: true}
  {{- end }}
  containers:
    - name: {{ .name }}
      image: {{ include "assay.image" . }}
      imagePullPolicy: {{ .c.image.pullPolicy }}
      command: [python, -m, assay_{{ .name }}]
      env:
        {{- include "assay.env" . | nindent 8 }}
      {{- with concat .root.Values.artifacts.envFrom .c.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - {name: grpc, containerPort: 50051}
        - {name: health, containerPort: 50052}
        - {name: metrics, containerPort: 9090}
        {{- if and (eq .name "reward") .c.http.enabled }}
        - {name: http, containerPort: 8080}
        {{- end }}
      startupProbe:
        grpc: {port: 50052, service: {{ $service }}}
        periodSeconds: 5
        timeoutSeconds: {{ int $probes.timeoutSeconds }}
        failureThreshold: {{ divf $probes.startupSeconds 5 | ceil | int }}
      readinessProbe:
        grpc: {port: 50052, service: {{ $service }}}
        periodSeconds: {{ int $probes.periodSeconds }}
        timeoutSeconds: {{ int $probes.timeoutSeconds }}
        failureThreshold: {{ int $probes.failureThreshold }}
      # Alive is who answers at all: neither Kafka nor a peer that is away makes a pod start again.
      livenessProbe:
        grpc: {port: 50052}
        periodSeconds: {{ int $probes.periodSeconds }}
        timeoutSeconds: {{ int $probes.timeoutSeconds }}
        failureThreshold: {{ int $probes.failureThreshold }}
      {{- if .root.Values.drain.preStopSeconds }}
      lifecycle:
        preStop:
          {{- if semverCompare ">=1.30-0" .root.Capabilities.KubeVersion.Version }}
          sleep: {seconds: {{ int .root.Values.drain.preStopSeconds }}}
          {{- else }}
          exec: {command: [sleep, {{ int .root.Values.drain.preStopSeconds | quote }}]}
          {{- end }}
      {{- end }}
      resources:
        {{- include "assay.resources" . | nindent 8 }}
      securityContext:
        {{- include "assay.securityContext" . | nindent 8 }}
      volumeMounts:
        {{- include "assay.volumeMounts" . | nindent 8 }}
  volumes:
    {{- include "assay.volumes" . | nindent 4 }}
{{- end -}}
