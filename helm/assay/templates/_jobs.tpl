{{/* What the pods of the release's Jobs have in common. */}}
{{- define "assay.jobPod" -}}
restartPolicy: OnFailure
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "assay.podSecurityContext" . | nindent 2 }}
{{- with include "assay.imagePullSecrets" . }}
{{ . }}
{{- end }}
{{- /* Where components run that say nothing of their own. */}}
{{- with .root.Values.defaults.placement.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.defaults.placement.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.defaults.placement.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Fetches each model into a folder of its own, which appears whole or not at all: it is the mark that the model is there. */}}
{{- define "assay.downloadPod" -}}
{{- $cache := .root.Values.modelCache -}}
{{ include "assay.jobPod" . }}
containers:
  - name: download
    image: {{ include "assay.image" .image }}
    imagePullPolicy: {{ .image.c.image.pullPolicy }}
    command: [sh, -euc]
    args:
      - |
        fetch() {
          folder=/models/$1/$3
          [ -d "$folder" ] && { echo "$1 is there"; return; }
          partial=/models/.partial/$1-$3
          mkdir -p "$partial" "/models/$1"
          hf download "$2" --revision "$3" --local-dir "$partial"
          rm -rf "$partial/.cache"
          mv "$partial" "$folder"
          echo "$1 is fetched"
        }
        {{- range $cache.models }}
        fetch {{ .name }} {{ .repository }} {{ .revision }}
        {{- end }}
    env:
      - {name: HOME, value: /tmp/home}
      - {name: HF_HOME, value: /tmp/home/hub}
      - {name: HF_HUB_DISABLE_TELEMETRY, value: "1"}
      {{- with $cache.endpoint }}
      - {name: HF_ENDPOINT, value: {{ . | quote }}}
      {{- end }}
      {{- with $cache.existingSecret }}
      - name: HF_TOKEN
        valueFrom:
          secretKeyRef:
            name: {{ . }}
            key: {{ $cache.key }}
      {{- end }}
    resources:
      {{- toYaml $cache.resources | nindent 6 }}
    securityContext:
      {{- include "assay.securityContext" . | nindent 6 }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      - {name: models, mountPath: /models}
volumes:
  - name: tmp
    emptyDir: {}
  - name: models
    persistentVolumeClaim:
      claimName: {{ include "assay.modelClaim" . }}
{{- end -}}

{{/* Makes the tables of every service with jobs, in the image of one of them. */}}
{{- define "assay.migrationPod" -}}
{{- $database := .root.Values.database -}}
{{- $services := list -}}
{{- range $name, $facts := .root.Files.Get "files/components.yaml" | fromYaml -}}
{{- if and $facts.jobs (include "assay.enabled" (dict "root" $.root "name" $name)) -}}{{- $services = append $services $name -}}{{- end -}}
{{- end -}}
{{- $image := dict "root" .root "name" (first $services) -}}
{{- include "assay.load" $image -}}
{{- $command := list "python" "-m" "assay_kit.jobs.migrate" -}}
{{- with $database.migration.role -}}{{- $command = concat $command (list "--role" .) -}}{{- end -}}
{{ include "assay.jobPod" . }}
containers:
  - name: migrate
    image: {{ include "assay.image" $image }}
    imagePullPolicy: {{ $image.c.image.pullPolicy }}
    command: {{ concat $command $services | toJson }}
    env:
      - {name: HOME, value: /tmp/home}
      - name: ASSAY_DATABASE_URL
        valueFrom:
          secretKeyRef:
            name: {{ $database.migration.existingSecret | default $database.existingSecret }}
            key: {{ $database.key }}
    resources:
      {{- toYaml $database.migration.resources | nindent 6 }}
    securityContext:
      {{- include "assay.securityContext" . | nindent 6 }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
volumes:
  - name: tmp
    emptyDir: {}
{{- end -}}
