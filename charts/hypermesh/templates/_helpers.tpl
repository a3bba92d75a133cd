{{- define "hypermesh.labels" -}}
app.kubernetes.io/name: hypermesh
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "hypermesh.selector" -}}
app.kubernetes.io/name: hypermesh
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "hypermesh.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end }}

{{- /* A tag that moves, such as dev, keeps pods running old code; a changed id rolls them out. */ -}}
{{- define "hypermesh.imageId" -}}
{{- with .Values.image.id }}
annotations: {hypermesh.online/image-id: {{ . | quote }}}
{{- end }}
{{- end }}

{{- define "hypermesh.restricted" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "hypermesh.env" -}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: HYPERMESH_LEDGER
  value: hypermesh-ledger.{{ .Release.Namespace }}.svc:7450
- name: HYPERMESH_TRUSTCHAIN
  value: hypermesh-trustchain.{{ .Release.Namespace }}.svc:7440
- name: HYPERMESH_TOKEN_FILE
  value: /var/run/secrets/hypermesh/token
- name: HYPERMESH_METRICS_PORT
  value: "7470"
- name: LOG_LEVEL
  value: {{ .Values.logLevel }}
{{- end }}

{{- define "hypermesh.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 1
  failureThreshold: 120
livenessProbe:
  httpGet: {path: /healthz, port: metrics}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 3
{{- end }}

{{- define "hypermesh.tokenVolume" -}}
- name: enrolment-token
  projected:
    sources:
      - serviceAccountToken: {audience: hypermesh-trustchain, expirationSeconds: 600, path: token}
{{- end }}

{{- define "hypermesh.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* The same list for every validator; the first of it begins the chain. */ -}}
{{- define "hypermesh.ledgerPeers" -}}
{{- $names := list -}}
{{- range $number := until (int .Values.ledger.validators) -}}
{{- $names = append $names (printf "hypermesh-ledger-%d.hypermesh-ledger-peers.%s.svc:7450" $number $.Release.Namespace) -}}
{{- end -}}
{{- join "," $names -}}
{{- end }}

{{- /* Fewer pods than validators can make no block any more, whatever is set again by an upgrade without --reuse-values. */ -}}
{{- define "hypermesh.ledgerStays" -}}
{{- $asked := int .Values.ledger.validators -}}
{{- range (lookup "v1" "PersistentVolumeClaim" .Release.Namespace "").items -}}
{{- $number := trimPrefix "data-hypermesh-ledger-" .metadata.name -}}
{{- if and (ne $number .metadata.name) (ge (atoi $number) $asked) (not .metadata.deletionTimestamp) -}}
{{- fail (printf "ledger.validators=%d, but there is a volume of validator hypermesh-ledger-%s (PersistentVolumeClaim %s): the ledger does not shrink, and with most of its validators gone it would stand still. Add --reuse-values, or --set ledger.validators as it was. If that pod never became a validator (kubectl hypermesh ledger validators), delete the claim first." $asked $number .metadata.name) -}}
{{- end -}}
{{- end -}}
{{- end }}
