package scan

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestHeadRefusesTooMuch(t *testing.T) {
	h := &head{limit: 4}
	n, err := h.Write([]byte("abc"))
	require.NoError(t, err)
	assert.Equal(t, 3, n)
	for range 2 {
		_, err = h.Write([]byte("de"))
		require.ErrorIs(t, err, errTooMuch)
		assert.True(t, h.over)
	}
	_, err = h.Write([]byte("f"))
	require.ErrorIs(t, err, errTooMuch, "what was lost leaves a gap")
	assert.Equal(t, "abc", h.buf.String())
}

func TestRedactSecretsThatHoldEachOther(t *testing.T) {
	said := redact("log in as robot with robot-hunter2", []string{"TRIVY_USERNAME=robot", "TRIVY_PASSWORD=robot-hunter2"})
	assert.Equal(t, "log in as *** with ***", said)
}
