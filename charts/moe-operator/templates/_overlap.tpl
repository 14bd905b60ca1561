{{- /*
Refuses a release whose operator would act where the operator of another one acts: the two would undo each other's work
without end. Helm sees the roles of other releases in the cluster; `helm template` and Argo CD see none.
*/ -}}
{{- define "moe-operator.refuseOverlap" -}}
{{- $own := printf "%s/%s" .Release.Namespace .Release.Name -}}
{{- $all := not .Values.namespaces -}}
{{- $roles := list -}}
{{- /* Who installs cluster-wide objects may list them. An administrator of single namespaces may not. */ -}}
{{- if or $all .Values.rbac.aggregate .Values.crds.enabled -}}
{{- $roles = concat $roles (lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" "" | dig "items" list) -}}
{{- end -}}
{{- range ternary (list "") .Values.namespaces $all -}}
{{- $roles = concat $roles (lookup "rbac.authorization.k8s.io/v1" "Role" . "" | dig "items" list) -}}
{{- end -}}
{{- range $roles -}}
{{- $labels := .metadata.labels | default dict -}}
{{- $annotations := .metadata.annotations | default dict -}}
{{- $release := get $annotations "meta.helm.sh/release-name" -}}
{{- $namespace := get $annotations "meta.helm.sh/release-namespace" -}}
{{- $ours := and (eq (get $labels "app.kubernetes.io/name") "moe-operator") $release -}}
{{- $forUsers := regexMatch "-(view|edit|approve)$" .metadata.name -}}
{{- $forLease := and (eq .kind "Role") (hasSuffix "-lease" .metadata.name) -}}
{{- if and $ours (not $forUsers) (not $forLease) (ne (printf "%s/%s" $namespace $release) $own) -}}
{{- $where := ternary "in all namespaces" (printf "in namespace %s" (get .metadata "namespace")) (eq .kind "ClusterRole") -}}
{{- fail (printf "release %s in namespace %s acts %s, so this one must not: list other namespaces in `namespaces` of both releases, or uninstall one of them" $release $namespace $where) -}}
{{- end -}}
{{- end -}}
{{- end }}
