{{- define "podidentity.labels" -}}
app.kubernetes.io/part-of: podidentity
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "_" | trunc 63 | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* Labels of pods: none that changes with the chart's version alone, since every upgrade would then restart them. */}}
{{- define "podidentity.podLabels" -}}
app.kubernetes.io/part-of: podidentity
{{- end }}

{{- /* A program's image. Arguments: root, program. */}}
{{- define "podidentity.image" -}}
{{- $image := (index (index . 0).Values (index . 1)).image -}}
{{- $message := printf "%s.image.repository is required, since no images are published: build both images with the Containerfile (docs/install.md, section Images), push them, and set operator.image.repository and webhook.image.repository, for example to registry.example.com/podidentity/%s" (index . 1) (index . 1) -}}
{{- printf "%s:%s" (required $message $image.repository) ($image.tag | default (index . 0).Chart.AppVersion) -}}
{{- end }}

{{- define "podidentity.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "podidentity.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- /* What the entries of the webhook configuration have in common. Arguments: root, path. */}}
{{- define "podidentity.webhookEntry" -}}
admissionReviewVersions: [v1]
sideEffects: None
reinvocationPolicy: IfNeeded
matchPolicy: Equivalent
timeoutSeconds: 2
clientConfig:
  service: {name: podidentity-webhook, namespace: {{ (index . 0).Release.Namespace }}, path: {{ index . 1 }}, port: 443}
rules:
  - {apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods], scope: Namespaced}
matchConditions:
  - name: not-a-mirror-pod
    expression: "!has(object.metadata.annotations) || !('kubernetes.io/config.mirror' in object.metadata.annotations)"
{{- end }}

{{- /* Excludes pods that opt out, by our label or by that of the EKS webhook. */}}
{{- define "podidentity.notOptedOut" -}}
- {key: podidentity.dev/injection, operator: NotIn, values: [disabled]}
- {key: eks.amazonaws.com/skip-pod-identity-webhook, operator: DoesNotExist}
{{- end }}

{{- /* Excludes namespaces in which no entry may fail closed: the cluster itself, and this release, need their pods to start. */}}
{{- define "podidentity.strictNamespaces" -}}
- {key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system, kube-node-lease, {{ .Release.Namespace }}]}
- {key: podidentity.dev/injection, operator: NotIn, values: [disabled]}
{{- end }}

{{/* Egress of both programs: DNS, and the API servers at the Service's address and at their own. */}}
{{- define "podidentity.egress" -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
- ports:
    {{- range (.Values.networkPolicy.apiServers | default dict).ports | default (list 443 6443) }}
    - port: {{ . }}
    {{- end }}
  {{- with (.Values.networkPolicy.apiServers | default dict).addresses }}
  to:
    {{- range . }}
    - ipBlock: {cidr: {{ . }}}
    {{- end }}
  {{- end }}
{{- end }}
