{{- define "hopgate.labels" -}}
app.kubernetes.io/name: hopgate
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "hopgate.selector" -}}
app.kubernetes.io/name: hopgate
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "hopgate.name" -}}
{{ printf "%s-%s" (.root.Release.Name | trunc 50 | trimSuffix "-") .component }}
{{- end }}

{{- define "hopgate.clusterName" -}}
{{ printf "%s-%s" .root.Release.Namespace (include "hopgate.name" .) }}
{{- end }}

{{- define "hopgate.image" -}}
{{ printf "%s%s:%s" .root.Values.images.prefix .repository (.root.Values.images.tag | default .root.Chart.AppVersion) }}
{{- end }}

{{- define "hopgate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "hopgate.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "hopgate.spread" -}}
topologySpreadConstraints:
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "hopgate.selector" . | nindent 6 }}
{{- end }}

{{- define "hopgate.webhooksEnabled" -}}
{{- if or .Values.validation.enabled .Values.injector.enabled }}true{{ end }}
{{- end }}
