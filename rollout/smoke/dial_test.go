package smoke

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/fairlead-dev/fairlead/rollout"
	"github.com/fairlead-dev/fairlead/stages"
	"github.com/fairlead-dev/fairlead/stages/stagestest"
)

func overHTTP(t *testing.T, change func(*HTTPConfig), handler http.HandlerFunc, pods ...string) *Test {
	t.Helper()
	c := HTTPConfig{REST: &rest.Config{Host: "https://kubernetes.example"}}
	if change != nil {
		change(&c)
	}
	d, err := prepareHTTP(c)
	require.NoError(t, err)
	return dialled(t, d, handler, append(pods, "shop-1")...)
}

// say answers with a text.
func say(w io.Writer, text string) {
	_, _ = io.WriteString(w, text) // who has gone away doesn't mind
}

func expecting(e Expect) func(*HTTPConfig) { return func(c *HTTPConfig) { c.Expect = e } }

func TestHTTPPasses(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var visits atomic.Int64
		test := overHTTP(t, func(c *HTTPConfig) {
			c.Path, c.Headers = "/orders?revision={{.Revision}}", map[string]string{"Accept": "application/json"}
			c.Expect = Expect{Status: 200, JSON: []JSON{{"{.n}", 1.0}, {"{.list[?(@.id==2)].ok}", true}, {"{.nothing}", nil}}, Attempts: 5, Successes: 4}
		}, func(w http.ResponseWriter, r *http.Request) {
			assert.Equal(t, "shop.shop.svc", r.Host)
			assert.Equal(t, "/orders?revision=3", r.URL.String())
			assert.Equal(t, "application/json", r.Header.Get("Accept"))
			switch visits.Add(1) {
			case 1, 4: // the first is not counted: nothing was reached yet
				w.WriteHeader(http.StatusBadGateway)
			default:
				say(w, `{"n":1,"list":[{"id":1,"ok":false},{"id":2,"ok":true}],"nothing":null}`)
			}
		})
		v, err := test.Verify(t.Context(), release(t))
		require.NoError(t, err)
		assert.Equal(t, release(t).Image, v.Image)
		assert.Contains(t, v.Checks[0].Message, "4 of 5 requests passed, status 200")
		assert.Contains(t, v.Checks[0].Message, "request 3 failed: returned status 502, expected 200")
		assert.True(t, test.Idempotent())
		require.NoError(t, test.Close())
	})
}

func TestHTTPFails(t *testing.T) {
	const body = `{"status":"ok","checks":[{"status":"ok"},{"status":"stale"}]}`
	for name, test := range map[string]struct {
		change func(*HTTPConfig)
		answer http.HandlerFunc
		text   string
	}{
		"status":        {expecting(Expect{Status: 204}), nil, "returned status 200, expected 204"},
		"error":         {nil, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, "returned status 500, expected one below 400"},
		"redirect":      {expecting(Expect{Status: 200}), func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) }, "returned status 302, expected 200"},
		"body":          {expecting(Expect{Contains: "splendid"}), nil, `the body of 61 bytes doesn't contain "splendid"`},
		"pattern":       {expecting(Expect{Matches: "^ok"}), nil, `doesn't match "^ok"`},
		"JSON value":    {expecting(Expect{JSON: []JSON{{"{.checks[*].status}", "ok"}}}), nil, `JSON path {.checks[*].status} is "stale", expected "ok"`},
		"JSON type":     {expecting(Expect{JSON: []JSON{{"{.status}", 1}}}), nil, `JSON path {.status} is "ok", expected 1`},
		"JSON missing":  {expecting(Expect{JSON: []JSON{{"{.nothing}", "ok"}}}), nil, "JSON path {.nothing}: nothing is not found"},
		"JSON no match": {expecting(Expect{JSON: []JSON{{`{.checks[?(@.status=="x")].status}`, "ok"}}}), nil, "finds nothing"},
		"no JSON":       {expecting(Expect{JSON: []JSON{{"{.a}", 1}}}), func(w http.ResponseWriter, _ *http.Request) { say(w, "<html>") }, "the body is not JSON"},
		"long JSON":     {expecting(Expect{JSON: []JSON{{"{.a}", 1}}}), func(w http.ResponseWriter, _ *http.Request) { say(w, strings.Repeat(" ", maxBody+1)) }, "too long to look for JSON paths"},
		"latency":       {expecting(Expect{MaxLatency: time.Second}), func(http.ResponseWriter, *http.Request) { time.Sleep(2 * time.Second) }, "took 2s, more than 1s"},
		"no answer":     {nil, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "no answer within 5s"},
		"hang-up":       {nil, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
		"N of M": {expecting(Expect{Status: 204, Attempts: 4, Successes: 3}), nil,
			"0 of 2 requests passed, 3 required; request 2: returned status 200, expected 204"},
		"elsewhere": {func(c *HTTPConfig) { c.Redirects = 1 }, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://evil.example/", http.StatusFound)
		}, "redirected to another host, http://evil.example"},
		"round and round": {func(c *HTTPConfig) { c.Redirects = 2 }, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) }, "redirected more than 2 times"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				if test.answer == nil {
					test.answer = func(w http.ResponseWriter, _ *http.Request) { say(w, body) }
				}
				_, err := overHTTP(t, test.change, test.answer).Verify(t.Context(), release(t))
				f := requireFailure(t, err)
				assert.Equal(t, rollout.SmokeFailed, f.Cause)
				assert.Equal(t, "pod shop/shop-1", f.Decisive.Subject)
				assert.Contains(t, err.Error(), test.text)
				assert.NotEmpty(t, f.Decisive.Logs)
				assert.Less(t, len(strings.Join(f.Decisive.Logs, "")), 8<<10)
			})
		})
	}
}

func TestSecretsAreMasked(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		test := overHTTP(t, func(c *HTTPConfig) {
			c.Expect = Expect{Status: 200, Retries: -1}
			c.SecretHeaders = func(context.Context) (http.Header, error) {
				return http.Header{"authorization": {"Bearer canary-1"}, "X-Odd": {"canary-2"}}, nil
			}
			c.Redact = func(s string) string { return strings.ReplaceAll(s, "canary-3", "***") }
		}, func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusTeapot)
			say(w, fmt.Sprintf("I was sent %s and %s, canary-3, password=canary-4\x1b[2J\u202e", strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), r.Header.Get("X-Odd")))
		})
		var told strings.Builder
		ctx := stages.WithProgress(t.Context(), func(p stages.Progress) { told.WriteString(p.Message) })
		_, err := test.Verify(ctx, release(t))
		f := requireFailure(t, err)
		all := err.Error() + strings.Join(f.Decisive.Logs, "\n") + told.String()
		assert.Contains(t, all, "I was sent *** and ***, ***, password=***")
		assert.NotContains(t, all, "canary")
		assert.NotContains(t, all, "\x1b")
		assert.NotContains(t, all, "\u202e")
	})
}

func TestRequestsGoToEachPod(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var asked []string
		d, err := prepareDial(DialConfig{Name: "x", Expect: Expect{Attempts: 4}, Try: func(_ context.Context, to Endpoint) (Answer, error) {
			asked = append(asked, to.Pod)
			return Answer{}, nil
		}})
		require.NoError(t, err)
		_, err = dialled(t, d, nil, "a", "b").Verify(t.Context(), release(t))
		require.NoError(t, err)
		assert.Equal(t, []string{"a", "b", "a", "b"}, asked)
	})
}

func TestAPodThatGoesAwayIsNoFailure(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		pods := []string{"a", "b"}
		d, err := prepareDial(DialConfig{Name: "x", Expect: Expect{Attempts: 3}, Try: func(_ context.Context, to Endpoint) (Answer, error) {
			if to.Pod == "b" {
				pods = []string{"a", "c"}
				return Answer{}, errors.New("connection reset")
			}
			return Answer{}, nil
		}})
		require.NoError(t, err)
		test := dialled(t, d, nil)
		d.endpoints = func(context.Context, stages.Release) ([]endpoint, error) {
			var all []endpoint
			for _, name := range pods {
				all = append(all, endpoint{pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}})
			}
			return all, nil
		}
		v, err := test.Verify(t.Context(), release(t))
		require.NoError(t, err)
		assert.Contains(t, v.Checks[0].Message, "3 of 3 requests passed")
	})
}

func TestAClusterThatDoesNotAnswerIsIndeterminate(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		away := &unreachable{errors.New("connection refused")}
		d, err := prepareDial(DialConfig{Name: "x", Try: func(context.Context, Endpoint) (Answer, error) { return Answer{}, nil }})
		require.NoError(t, err)
		test := dialled(t, d, nil)
		d.endpoints = func(context.Context, stages.Release) ([]endpoint, error) { return nil, away }
		_, err = test.Verify(t.Context(), release(t))
		require.ErrorIs(t, err, stages.ErrIndeterminate)
		require.ErrorIs(t, err, away)
		assert.False(t, stages.IsPermanent(err))
	})
}

func TestTry(t *testing.T) {
	for name, test := range map[string]struct {
		try  func(context.Context, Endpoint) (Answer, error)
		text string
	}{
		"panics":     {func(context.Context, Endpoint) (Answer, error) { panic("oops") }, "stage panicked: oops"},
		"goes":       {func(context.Context, Endpoint) (Answer, error) { runtime.Goexit(); return Answer{}, nil }, "ended its goroutine"},
		"fails":      {func(context.Context, Endpoint) (Answer, error) { return Answer{}, io.ErrUnexpectedEOF }, "unexpected EOF"},
		"takes ages": {func(ctx context.Context, _ Endpoint) (Answer, error) { <-ctx.Done(); return Answer{}, ctx.Err() }, "no answer within 5s"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				d, err := prepareDial(DialConfig{Name: "x", Try: test.try})
				require.NoError(t, err)
				_, err = dialled(t, d, nil, "a").Verify(t.Context(), release(t))
				requireFailure(t, err)
				require.ErrorContains(t, err, test.text)
			})
		})
	}
}

func TestTimeoutIsAFailureOfWhoDoesNotAnswer(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		test := overHTTP(t, func(c *HTTPConfig) { c.Timeout, c.RequestTimeout = 3*time.Second, time.Minute },
			func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		_, err := test.Verify(t.Context(), release(t))
		requireFailure(t, err)
		require.ErrorContains(t, err, "no answer within the test's timeout")
	})
}

func TestTLS(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { say(w, "ok") }))
	t.Cleanup(server.Close)
	server.Config.ErrorLog = nil
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for name, test := range map[string]struct {
		tls  TLS
		text string
	}{
		"trusted":         {TLS{CA: authority, ServerName: "example.com"}, ""},
		"another name":    {TLS{CA: authority}, "not shop.shop.svc"},
		"unknown":         {TLS{ServerName: "example.com"}, "certificate"},
		"anybody trusted": {TLS{DangerouslyTrustAnyCertificate: true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := prepareHTTP(HTTPConfig{TLS: &test.tls, Expect: Expect{Retries: -1}})
			require.NoError(t, err)
			check := dialled(t, d, nil, "a")
			d.dial = func(ctx context.Context, _ endpoint) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "tcp", server.Listener.Addr().String())
			}
			_, err = check.Verify(t.Context(), release(t))
			if test.text == "" {
				require.NoError(t, err)
				return
			}
			requireFailure(t, err)
			require.ErrorContains(t, err, test.text)
			_, isTLS := errors.AsType[*tls.CertificateVerificationError](err)
			assert.True(t, isTLS, "the cause is kept")
		})
	}
}

func TestTCP(t *testing.T) {
	for name, test := range map[string]struct {
		config TCPConfig
		text   string
	}{
		"open":         {TCPConfig{}, ""},
		"answer":       {TCPConfig{Send: "PING\n", Expect: Expect{Contains: "PONG"}}, ""},
		"wrong answer": {TCPConfig{Send: "PING\n", Expect: Expect{Contains: "PING"}}, `doesn't contain "PING"`},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				d, err := prepareTCP(test.config)
				require.NoError(t, err)
				check := dialled(t, d, nil, "a")
				d.dial = func(context.Context, endpoint) (net.Conn, error) {
					ours, theirs := net.Pipe()
					go func() {
						defer theirs.Close()
						if n, _ := theirs.Read(make([]byte, 16)); n > 0 {
							_, _ = io.WriteString(theirs, "PONG\n")
							_, _ = theirs.Read(make([]byte, 1))
						}
					}()
					return ours, nil
				}
				_, err = check.Verify(t.Context(), release(t))
				if test.text == "" {
					require.NoError(t, err)
					return
				}
				requireFailure(t, err)
				require.ErrorContains(t, err, test.text)
			})
		})
	}
}

func TestFunc(t *testing.T) {
	cause := errors.New("no books; token=canary")
	for name, test := range map[string]struct {
		run  func(context.Context, stages.Release) (string, error)
		text string
	}{
		"passes":    {func(context.Context, stages.Release) (string, error) { return "3 books", nil }, ""},
		"fails":     {func(context.Context, stages.Release) (string, error) { return "", cause }, "smoke test books: SmokeFailed: no books"},
		"panics":    {func(context.Context, stages.Release) (string, error) { panic("oops") }, "stage panicked: oops"},
		"times out": {func(ctx context.Context, _ stages.Release) (string, error) { <-ctx.Done(); return "", ctx.Err() }, "did not finish within 1m0s"},
		"too late":  {func(ctx context.Context, _ stages.Release) (string, error) { <-ctx.Done(); return "fine", nil }, "did not finish within 1m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				check, err := NewFunc(FuncConfig{Name: "books", Run: test.run, Once: true})
				require.NoError(t, err)
				assert.False(t, check.Idempotent())
				v, err := check.Verify(t.Context(), release(t))
				if test.text == "" {
					require.NoError(t, err)
					assert.Equal(t, "3 books", v.Checks[0].Message)
					return
				}
				f := requireFailure(t, err)
				assert.Contains(t, err.Error(), test.text)
				assert.NotContains(t, err.Error()+strings.Join(f.Decisive.Logs, ""), "canary")
				if name == "fails" {
					require.ErrorIs(t, err, cause)
				}
			})
		})
	}
	_, err := NewFunc(FuncConfig{Name: "books"})
	require.ErrorIs(t, err, stages.ErrInvalid)
	_, err = NewFunc(FuncConfig{Run: func(context.Context, stages.Release) (string, error) { return "", nil }})
	require.ErrorIs(t, err, stages.ErrInvalid)
}

func TestConforms(t *testing.T) {
	bad := release(t)
	bad.Name = "bad"
	answer := func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Host, "bad") {
			w.WriteHeader(http.StatusNotFound)
		}
	}
	t.Run("HTTP", func(t *testing.T) {
		stagestest.TestVerifier(t, func(t *testing.T) stagestest.VerifierHarness {
			return stagestest.VerifierHarness{Verifier: overHTTP(t, expecting(Expect{Retries: -1}), answer), Good: release(t), Bad: bad}
		})
	})
	t.Run("func", func(t *testing.T) {
		stagestest.TestVerifier(t, func(t *testing.T) stagestest.VerifierHarness {
			check, err := NewFunc(FuncConfig{Name: "x", Run: func(_ context.Context, rel stages.Release) (string, error) {
				if rel.Name == "bad" {
					return "", errors.New("bad")
				}
				return "", nil
			}})
			require.NoError(t, err)
			return stagestest.VerifierHarness{Verifier: check, Good: release(t), Bad: bad}
		})
	})
}

func TestProbesRefuseBadConfig(t *testing.T) {
	access := &rest.Config{Host: "https://kubernetes.example"}
	for name, change := range map[string]func(*HTTPConfig){
		"no cluster":      func(c *HTTPConfig) { c.REST = nil },
		"secret header":   func(c *HTTPConfig) { c.Headers = map[string]string{"X-Api-Key": "canary"} },
		"secret in query": func(c *HTTPConfig) { c.Path = "/?token=canary" },
		"relative path":   func(c *HTTPConfig) { c.Path = "x" },
		"host with user":  func(c *HTTPConfig) { c.Host = "u:canary@shop" },
		"no certificates": func(c *HTTPConfig) { c.TLS = &TLS{CA: []byte("none")} },
		"target":          func(c *HTTPConfig) { c.Target.Name = "shop" },
		"target's kind":   func(c *HTTPConfig) { c.Target.Name = "secret/shop" },
		"port":            func(c *HTTPConfig) { c.Target.Port = "70000" },
		"status":          func(c *HTTPConfig) { c.Expect.Status = 1000 },
		"redirects":       func(c *HTTPConfig) { c.Redirects = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			c := HTTPConfig{REST: access}
			change(&c)
			_, err := NewHTTP(c)
			require.ErrorIs(t, err, stages.ErrInvalid)
			assert.NotContains(t, err.Error(), "canary")
		})
	}
	_, err := NewTCP(TCPConfig{REST: access, Send: "AUTH password=canary"})
	require.ErrorIs(t, err, stages.ErrInvalid)
	_, err = NewTCP(TCPConfig{REST: access, Expect: Expect{Status: 200}})
	require.ErrorIs(t, err, stages.ErrInvalid)
	_, err = NewDial(DialConfig{REST: access, Name: "x"})
	require.ErrorIs(t, err, stages.ErrInvalid)
}

func FuzzTarget(f *testing.F) {
	f.Add("service/shop", "http")
	f.Add("deploy/{{.Release}}", "80")
	f.Add("pod/{{", "-1")
	f.Fuzz(func(t *testing.T, name, port string) {
		target, err := Target{Name: name, Port: port}.compile()
		if err == nil {
			_, _, err = target.resolve(release(t))
		}
		if err != nil {
			require.ErrorIs(t, err, stages.ErrInvalid)
		}
	})
}

func FuzzJSONPath(f *testing.F) {
	f.Add("{.a[?(@.b==1)]}", `{"a":[{"b":1}]}`)
	f.Add("{..a}", `[1,null]`)
	f.Add("{.a[0:9:0]}{end}", `{"a":[1]}`)
	f.Fuzz(func(t *testing.T, path, body string) {
		e, err := Expect{JSON: []JSON{{Path: path, Want: 1}}}.compile()
		if err != nil {
			require.ErrorIs(t, err, stages.ErrInvalid)
			return
		}
		e.judge(Answer{Body: []byte(body)}, plainly)
	})
}
