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
gateways: {{ toJson .Values.gateways }}
presets: {{ toJson .Values.presets }}
namespaces: {{ toJson .Values.namespaces }}
workers: {{ .Values.operator.workers }}
sweepSeconds: {{ .Values.operator.sweepSeconds }}
leaseSeconds: {{ .Values.operator.leaseSeconds }}
queue: {{ .Values.queue | quote }}
lease: {{ include "moe-operator.name" . }}
{{- end }}
