package registry_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"

	"github.com/fairlead-dev/fairlead/registry"
)

// serveDirVar has the test binary serve a folder until it is killed.
const serveDirVar = "FAIRLEAD_TEST_SERVE_DIR"

func serveUntilKilled(dir string) error {
	s, err := registry.Serve(context.Background(), registry.Options{Dir: dir})
	if err != nil {
		return err
	}
	fmt.Println(s.Addr())
	select {}
}

// TestKilledInTheMiddleOfPushes kills a registry while images are pushed to it.
// Every tag that the next process has must name a whole image.
func TestKilledInTheMiddleOfPushes(t *testing.T) {
	dir := t.TempDir()
	for round := range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), serveDirVar+"="+dir)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		line, err := bufio.NewReader(out).ReadString('\n')
		require.NoError(t, err)
		addr := strings.TrimSpace(line)

		pushed, started := make(chan int, 1), make(chan struct{})
		go func() {
			n := 0
			defer func() { pushed <- n }()
			for {
				img, err := random.Image(200_000, 3)
				if err != nil {
					return
				}
				tag, err := name.NewTag(fmt.Sprintf("%s/app:r%d-%d", addr, round, n))
				if err != nil || remote.Write(tag, img, remote.WithRetryBackoff(remote.Backoff{Steps: 1})) != nil {
					return
				}
				if n++; n == round+1 {
					close(started)
				}
			}
		}()
		<-started
		require.NoError(t, cmd.Process.Kill(), "while the next is being pushed")
		require.Error(t, cmd.Wait(), "it was killed")
		count := <-pushed

		s, err := registry.Serve(context.Background(), registry.Options{Dir: dir})
		require.NoError(t, err)
		for i := range count {
			_, err := remote.Head(ref(t, fmt.Sprintf("%s/app:r%d-%d", s.Addr(), round, i)))
			require.NoError(t, err, "what was acknowledged is there")
		}
		repo, err := name.NewRepository(s.Addr() + "/app")
		require.NoError(t, err)
		tags, err := remote.List(repo)
		require.NoError(t, err)
		for _, tag := range tags {
			img, err := remote.Image(repo.Tag(tag))
			require.NoError(t, err)
			require.NoError(t, validate.Image(img), tag)
		}
		require.NoError(t, s.Close(context.Background()))
	}
}
