package wait

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		assert.True(t, For(ctx, 0))
		assert.True(t, For(ctx, -1))
		assert.Zero(t, time.Since(began))
		assert.True(t, For(ctx, time.Second))
		assert.Equal(t, time.Second, time.Since(began))
		assert.False(t, For(ctx, time.Hour))
		assert.Equal(t, 3*time.Second, time.Since(began))
		assert.False(t, For(ctx, 0))
	})
}
