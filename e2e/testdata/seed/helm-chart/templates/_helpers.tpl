{{- define "chart.name" -}}{{ .Release.Name }}{{- end }}
{{- define "chart.serviceAccountName" -}}{{ (.Values.serviceAccount | default dict).name | default "" }}{{- end }}
