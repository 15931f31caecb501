package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The README shows this program, so what it shows compiles.
func TestReadmeShowsThisProgram(t *testing.T) {
	program, err := os.ReadFile("main.go")
	require.NoError(t, err)
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, body, found := strings.Cut(string(program), "\nfunc main()")
	require.True(t, found)
	require.Contains(t, string(readme), "func main()"+body, "copy main.go's body into the README")
}
