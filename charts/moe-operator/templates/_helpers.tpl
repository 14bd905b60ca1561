{{- define "moe-operator.name" -}}
{{- default .Release.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "moe-operator.selector" -}}
app.kubernetes.io/name: moe-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "moe-operator.labels" -}}
{{ include "moe-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: moe-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "moe-operator.serviceAccount" -}}
{{- default (include "moe-operator.name" .) .Values.serviceAccount.name -}}
{{- end }}

{{- /* The reference of one image; takes (list $ "operator"). */ -}}
{{- define "moe-operator.image" -}}
{{- $root := index . 0 -}}
{{- $image := index $root.Values.images (index . 1) -}}
{{- printf "%s:%s" $image.name (default $root.Chart.AppVersion $image.tag) -}}
{{- end }}

{{- /* The operator's configuration file: moe_operator.config.OperatorConfig. */ -}}
{{- define "moe-operator.config" -}}
images:
  trainer: {{ include "moe-operator.image" (list . "trainer") }}
  gateway: {{ include "moe-operator.image" (list . "gateway") }}
  pullPolicy: {{ .Values.images.pullPolicy }}
  pullSecrets: {{ toJson .Values.images.pullSecrets }}
profiles:
  {{- range $name, $profile := .Values.profiles }}
  {{- if $profile }}
  {{ $name }}: {{- toYaml $profile | nindent 4 }}
  {{- end }}
  {{- end }}
stores:
  {{- range $name, $store := .Values.stores }}
  {{- if $store }}
  {{ $name }}: {{- toYaml $store | nindent 4 }}
  {{- end }}
  {{- else }} {}
  {{- end }}
graders:
  {{- range $name, $grader := .Values.graders }}
  {{- if $grader }}
  {{ $name }}: {{- toYaml $grader | nindent 4 }}
  {{- end }}
  {{- else }} {}
  {{- end }}
deadlineSeconds: {{ toJson .Values.deadlineSeconds }}
presets: {{ toJson .Values.presets }}
namespaces: {{ toJson .Values.namespaces }}
workers: {{ .Values.operator.workers }}
sweepSeconds: {{ .Values.operator.sweepSeconds }}
leaseSeconds: {{ .Values.operator.leaseSeconds }}
queue: {{ .Values.queue | quote }}
{{- end }}

{{- /* The permissions of the operator in the namespaces that it works in: exactly those that it uses. */ -}}
{{- define "moe-operator.rules" -}}
# The custom resources. The operator never writes a spec that a person owns.
- apiGroups: [moe-operator.dev]
  resources: [expertpools, experts]
  verbs: [get, list, watch]
- apiGroups: [moe-operator.dev]
  resources: [expertrevisions]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [moe-operator.dev]
  resources: [expertpools/status, experts/status, expertrevisions/status]
  verbs: [patch]
# Jobs that read data, train, evaluate, grade and distill. Their pods are only read.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
# Deployments of servers and gateways, their Services, and the ConfigMaps with routing policies.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments/scale]
  verbs: [patch]
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [get, list, watch, create, patch, delete]
# A pool's claim is created but never changed or deleted: it holds the weights.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create]
- apiGroups: [""]
  resources: [events]
  verbs: [get, create, patch]
{{- end }}
