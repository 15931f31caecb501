{{- define "greeting" }}hello {{ .Environment.Name }}{{ end -}}
