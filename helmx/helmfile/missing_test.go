package helmfile

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/stages"
)

// logging has a configuration log into a buffer, at any level.
func logging(cfg *Config) *bytes.Buffer {
	var b bytes.Buffer
	cfg.Logger = slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return &b
}

func TestMissingFilesAreSkipped(t *testing.T) {
	const there = "releases:\n- name: a\n  namespace: ns\n  chart: ./a\n  values: [v.yaml, none.yaml"
	for name, tt := range map[string]struct {
		text   string
		missed string // what the log says is missing
		level  string
	}{
		"Warn":                 {there + "]\n  missingFileHandler: Warn\n", "none.yaml", "WARN"},
		"Info":                 {there + "]\n  missingFileHandler: Info\n", "none.yaml", "INFO"},
		"Debug":                {there + "]\n  missingFileHandler: Debug\n", "none.yaml", "DEBUG"},
		"a template of values": {there[:len(there)-len("none.yaml")] + "none.yaml.gotmpl]\n  missingFileHandler: Warn\n", "none.yaml.gotmpl", "WARN"},
		"at the root":          {"missingFileHandler: Info\n" + there + "]\n", "none.yaml", "INFO"},
		"the release's own":    {"missingFileHandler: Error\n" + there + "]\n  missingFileHandler: Debug\n", "none.yaml", "DEBUG"},
		"an earlier document":  {"missingFileHandler: Warn\n---\n" + there + "]\n", "none.yaml", "WARN"},
		"inherited":            {"templates: {t: {missingFileHandler: Warn}}\n" + there + "]\n  inherit: [{template: t}]\n", "none.yaml", "WARN"},
		"secrets":              {there[:len(there)-len(", none.yaml")] + "]\n  secrets: [none.yaml]\n  missingFileHandler: Warn\n", "none.yaml", "WARN"},
		"an environment's values": {
			"environments: {default: {missingFileHandler: Warn, values: [none.yaml, v.yaml]}}\n---\n" + releaseA + "  values: [{a: '{{ .Values.a }}'}]\n", "none.yaml", "WARN",
		},
		"what no file matches": {
			"environments: {default: {missingFileHandler: Warn, values: ['none-*.yaml', v.yaml]}}\n---\n" + releaseA + "  values: [{a: '{{ .Values.a }}'}]\n", "none-*.yaml", "WARN",
		},
		"an environment's secrets":         {"environments: {default: {missingFileHandler: Info, secrets: [none.yaml]}}\n---\n" + there[:len(there)-len(", none.yaml")] + "]\n", "none.yaml", "INFO"},
		"an environment's secrets by root": {"missingFileHandler: Info\nenvironments: {default: {secrets: [none.yaml]}}\n---\n" + there[:len(there)-len(", none.yaml")] + "]\n", "none.yaml", "INFO"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := write(t, tt.text, map[string]string{"v.yaml": "a: one"})
			log := logging(&cfg)
			_, configs, err := load(t.Context(), cfg)
			require.NoError(t, err)
			assert.Equal(t, map[string]any{"a": "one"}, layered(configs["ns/a"].Values))
			lines := strings.Split(strings.TrimSpace(log.String()), "\n")
			require.Len(t, lines, 1, "it is told once")
			assert.Contains(t, lines[0], "level="+tt.level)
			assert.Contains(t, lines[0], filepath.Join(filepath.Dir(cfg.Path), tt.missed))
			assert.Contains(t, lines[0], "helmfile.yaml:", "where it is listed")
			cfg.Logger = nil
			_, err = Load(t.Context(), cfg)
			require.NoError(t, err)
		})
	}
}

// TestMissingFilesThatAreNotSkipped checks what a handler is not for.
func TestMissingFilesThatAreNotSkipped(t *testing.T) {
	for name, tt := range map[string]struct{ text, says string }{
		"Error":                             {releaseA + "  values: [none.yaml]\n  missingFileHandler: Error\n", "none.yaml does not exist"},
		"Error over the root":               {"missingFileHandler: Warn\n" + releaseA + "  values: [none.yaml]\n  missingFileHandler: Error\n", "none.yaml does not exist"},
		"secrets, Error":                    {releaseA + "  secrets: [none.yaml]\n", "none.yaml does not exist"},
		"an environment, by the root":       {"missingFileHandler: Warn\nenvironments: {default: {values: [none.yaml]}}\n---\n" + releaseA, "none.yaml does not exist"},
		"an environment, by another":        {"environments: {other: {missingFileHandler: Warn}, default: {values: [none.yaml]}}\n---\n" + releaseA, "none.yaml does not exist"},
		"what no file matches":              {"environments: {default: {values: ['none-*.yaml']}}\n---\n" + releaseA, "no file matches none-*.yaml"},
		"values at the root":                {"missingFileHandler: Warn\nvalues: [none.yaml]\n---\n" + releaseA, "none.yaml does not exist"},
		"a file that another one reads":     {releaseA + "  values: [v.yaml.gotmpl]\n  missingFileHandler: Warn\n", "the file none.yaml does not exist"},
		"a file that can't be read":         {releaseA + "  values: [folder]\n  missingFileHandler: Warn\n", "folder"},
		"a file outside of the root":        {releaseA + "  values: [../none.yaml]\n  missingFileHandler: Warn\n", "is outside of"},
		"a file from afar":                  {releaseA + "  values: ['https://x.invalid/none.yaml']\n  missingFileHandler: Warn\n", "only local files are read"},
		"a file that is set":                {releaseA + "  set: [{name: a, file: none.yaml}]\n  missingFileHandler: Warn\n", "there is no file"},
		"a base":                            {"missingFileHandler: Warn\nbases: [none.yaml]\n" + releaseA, "none.yaml does not exist"},
		"an unknown handler":                {releaseA + "  missingFileHandler: warn\n", `helmfile.yaml:5: releases[0].missingFileHandler: "warn" is none of Error, Warn, Info and Debug`},
		"an unknown handler at the root":    {"missingFileHandler: Ignore\n" + releaseA, `helmfile.yaml:1: missingFileHandler: "Ignore" is none of`},
		"an unknown handler of another":     {"environments: {other: {missingFileHandler: Ignore}}\n" + releaseA, "environments.other.missingFileHandler"},
		"what is to be done about a branch": {releaseA + "  missingFileHandlerConfig: {ignoreMissingGitBranch: true}\n", "only local files are read"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := write(t, tt.text, map[string]string{"v.yaml.gotmpl": `a: {{ readFile "none.yaml" }}`})
			require.NoError(t, os.Mkdir(filepath.Join(filepath.Dir(cfg.Path), "folder"), 0o750))
			log := logging(&cfg)
			cfg.Decrypt = func(context.Context, string, []byte) ([]byte, error) { return nil, fmt.Errorf("not asked") }
			_, err := Load(t.Context(), cfg)
			require.ErrorIs(t, err, stages.ErrInvalid)
			assert.ErrorContains(t, err, tt.says)
			assert.Empty(t, log.String())
		})
	}
}
