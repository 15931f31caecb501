package registry

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestSecretsThatHoldEachOther(t *testing.T) {
	for range 20 { // maps have no order
		s := &secrets{}
		s.add("robot", "robot-hunter2", "robot-hunter2-more")
		assert.Equal(t, "[redacted] and [redacted] and [redacted]", s.remove("robot-hunter2 and robot-hunter2-more and robot"))
	}
}
