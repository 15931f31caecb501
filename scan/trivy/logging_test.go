package trivy_test

import (
	"bytes"
	"log" //nolint:depguard // what is tested
	"log/slog"
	"reflect"
	"testing"
	"time"

	trivylog "github.com/aquasecurity/trivy/pkg/log"
	"github.com/stretchr/testify/assert"
)

// Merely importing Trivy makes the program's log vanish; importing this package
// brings it back.
func TestDefaultLoggerIsOrdinary(t *testing.T) {
	var b bytes.Buffer
	defer log.SetOutput(log.Writer())
	defer log.SetFlags(log.Flags())
	log.SetOutput(&b)
	log.SetFlags(0)

	slog.Info("hello", "a", 1, slog.Group("g", "b", "two words"))
	slog.With("c", true).WithGroup("h").Warn("there", "d", 2)
	slog.Debug("not shown")
	log.Print("plain")
	trivylog.Warn("from Trivy")
	trivylog.WarnContext(t.Context(), "from Trivy")
	somewhere := slog.NewRecord(time.Now(), slog.LevelWarn, "from Trivy", reflect.ValueOf(trivylog.WithPrefix).Pointer()+1)
	assert.NoError(t, slog.Default().Handler().Handle(t.Context(), somewhere))
	assert.Equal(t, "INFO hello a=1 g.b=\"two words\"\nWARN there c=true h.d=2\nplain\n", b.String())
}
