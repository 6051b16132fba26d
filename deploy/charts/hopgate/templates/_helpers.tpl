{{/* The name of the installation: `hopgate`, or with the release's name before it. Components add their own. */}}
{{- define "hopgate.full" -}}
{{- if eq .Release.Name "hopgate" }}hopgate{{ else }}{{ printf "%s-hopgate" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* Of (dict "root" $ "component" "authz"): the name of a component and of all that belongs to it alone. */}}
{{- define "hopgate.name" -}}
{{ include "hopgate.full" .root }}-{{ .component }}
{{- end }}

{{- define "hopgate.selector" -}}
app.kubernetes.io/name: hopgate
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "hopgate.labels" -}}
{{ include "hopgate.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Of (dict "root" $ "component" "authz" "kind" "ClusterRole" "namespace" ""): a component's binding to the role of its own name. */}}
{{- define "hopgate.binding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}Binding
metadata:
  name: {{ include "hopgate.name" . }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels: {{- include "hopgate.labels" . | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: {{ .kind }}, name: {{ include "hopgate.name" . }}}
subjects:
- {kind: ServiceAccount, name: {{ include "hopgate.name" . }}, namespace: {{ .root.Release.Namespace }}}
{{- end }}

{{- define "hopgate.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "hopgate.name" . }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "hopgate.labels" . | nindent 4 }}
automountServiceAccountToken: false
{{- end }}

{{/* The rule to read the Secrets that a `credential` names. */}}
{{- define "hopgate.secretRule" -}}
# The Secrets that a `credential` names, by name: one that is missing or unusable is a mistake of the object that names it.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get]
{{- end }}

{{/* The same in the namespaces of `secretNamespaces` alone. */}}
{{- define "hopgate.secretRoles" -}}
{{- range .root.Values.secretNamespaces }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ include "hopgate.name" $ }}-secrets
  namespace: {{ . }}
  labels: {{- include "hopgate.labels" $ | nindent 4 }}
rules:
{{ include "hopgate.secretRule" $ }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ include "hopgate.name" $ }}-secrets
  namespace: {{ . }}
  labels: {{- include "hopgate.labels" $ | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ include "hopgate.name" $ }}-secrets}
subjects:
- {kind: ServiceAccount, name: {{ include "hopgate.name" $ }}, namespace: {{ $.root.Release.Namespace }}}
{{- end }}
{{- end }}

{{/* Of (dict "root" $ "image" "authz"): prefix, name and tag. */}}
{{- define "hopgate.image" -}}
{{ printf "%s%s:%s" .root.Values.images.prefix (get .root.Values.images .image) (.root.Values.images.tag | default .root.Chart.AppVersion) }}
{{- end }}

{{/* Of (dict "root" $ "component" "authz"): where a pod of hopgate runs, as whom, and that it tells the API server who it is. */}}
{{- define "hopgate.account" -}}
{{- $values := get .root.Values .component }}
serviceAccountName: {{ include "hopgate.name" . }}
automountServiceAccountToken: true
enableServiceLinks: false
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName | default .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What every pod of hopgate has that needs nothing of its node, of (dict "root" $ "component" "authz"). */}}
{{- define "hopgate.pod" -}}
{{ include "hopgate.account" . }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
topologySpreadConstraints:
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- include "hopgate.selector" . | nindent 6 }}
  matchLabelKeys: [pod-template-hash]
{{- end }}

{{/* What a container of hopgate runs, of (dict "root" $ "component" "authz" "image" "authz"). */}}
{{- define "hopgate.runs" -}}
image: {{ include "hopgate.image" . | quote }}
imagePullPolicy: {{ .root.Values.images.pullPolicy }}
terminationMessagePolicy: FallbackToLogsOnError
resources: {{- toYaml (get .root.Values .component).resources | nindent 2 }}
{{- end }}

{{/* What every container of hopgate has that needs nothing of its node, of the same. */}}
{{- define "hopgate.container" -}}
{{ include "hopgate.runs" . }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* A component's volume for records. */}}
{{- define "hopgate.spoolVolume" -}}
{{- $spool := (get .root.Values .component).spool -}}
- name: spool
  {{- if eq $spool.type "EmptyDir" }}
  emptyDir: {sizeLimit: {{ $spool.size }}}
  {{- else if eq $spool.type "Ephemeral" }}
  ephemeral:
    volumeClaimTemplate:
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $spool.storageClassName }}
        storageClassName: {{ . }}
        {{- end }}
        resources: {requests: {storage: {{ $spool.size }}}}
  {{- else }}
  persistentVolumeClaim: {claimName: {{ $spool.claimName }}}
  {{- end }}
{{- end }}

{{/* Where it is mounted. In a claim that several pods share each has a folder of its own; one that is gone leaves it to be read. */}}
{{- define "hopgate.spoolMount" -}}
- name: spool
  mountPath: /var/lib/hopgate
  {{- if eq (get .root.Values .component).spool.type "Claim" }}
  subPathExpr: $(POD_NAME)
  {{- end }}
{{- end }}

{{/* A Secret's certificate and key, and nothing else of it. */}}
{{- define "hopgate.certificateItems" -}}
items:
- {key: tls.crt, path: tls.crt}
- {key: tls.key, path: tls.key}
{{- end }}

{{- define "hopgate.webhooksEnabled" -}}
{{- if or .Values.validation.enabled .Values.injection.enabled }}true{{ end }}
{{- end }}

{{/* The components that are on, as a list in JSON. */}}
{{- define "hopgate.components" -}}
{{- $found := list }}
{{- if .Values.authz.enabled }}{{ $found = append $found "authz" }}{{ end }}
{{- if include "hopgate.webhooksEnabled" . }}{{ $found = append $found "webhooks" }}{{ end }}
{{- if .Values.controller.enabled }}{{ $found = append $found "controller" }}{{ end }}
{{- if .Values.sensor.enabled }}{{ $found = append $found "sensor" }}{{ end }}
{{- toJson $found }}
{{- end }}
