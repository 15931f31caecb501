{{- define "chart.name" -}}{{ .Release.Name }}{{- end -}}
{{- define "chart.serviceAccountName" -}}{{- with .Values.serviceAccount }}{{ .name }}{{- end }}{{- end -}}
