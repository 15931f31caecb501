package prometheus

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

// errTooLarge is an answer over the limit.
var errTooLarge = errors.New("the answer is over the size limit")

// credentialsError is a credential that could not be had. Its cause is the
// caller's own function, so it is kept.
type credentialsError struct{ err error }

func (e *credentialsError) Error() string { return "get the credentials: " + e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }

// statusError is an answer with a status that says more than the client's error.
type statusError struct{ status int }

func (e *statusError) Error() string {
	return fmt.Sprintf("the server answered %d %s", e.status, http.StatusText(e.status))
}

// authorizer adds what the configuration says to each request, and bounds the
// answer.
type authorizer struct {
	config Config
	next   http.RoundTripper
	seen   *secrets
}

// RoundTrip sends a copy of req.
func (a *authorizer) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	for name, value := range a.config.Headers {
		req.Header.Set(name, value)
	}
	if err := a.authorize(req); err != nil {
		return nil, &credentialsError{err}
	}
	resp, err := a.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = &bounded{ReadCloser: resp.Body, left: a.config.MaxBytes}
	return resp, nil
}

func (a *authorizer) authorize(req *http.Request) error {
	switch {
	case a.config.BearerToken != nil:
		token, err := a.config.BearerToken(req.Context())
		if err != nil {
			return err
		}
		a.seen.add(token)
		req.Header.Set("Authorization", "Bearer "+token)
	case a.config.Password != nil:
		password, err := a.config.Password(req.Context())
		if err != nil {
			return err
		}
		req.SetBasicAuth(a.config.Username, password)
		_, encoded, _ := strings.Cut(req.Header.Get("Authorization"), " ")
		a.seen.add(password, encoded)
	}
	return nil
}

type bounded struct {
	io.ReadCloser
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, errTooLarge
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left+1)])
	if b.left -= int64(n); b.left < 0 {
		return n, errTooLarge
	}
	return n, err
}

// statusClient tells refusals apart from answers, before the API client hides the
// status.
type statusClient struct{ api.Client }

// Do sends req.
func (c statusClient) Do(ctx context.Context, req *http.Request) (*http.Response, []byte, error) {
	resp, body, err := c.Client.Do(ctx, req)
	if err != nil {
		return resp, body, err
	}
	switch code := resp.StatusCode; {
	case code/100 == 5:
		// The client reads Prometheus' own account of an error with 400 and 422 only.
		var account struct {
			ErrorType v1.ErrorType `json:"errorType"`
			Error     string       `json:"error"`
		}
		if json.Unmarshal(body, &account) == nil && account.ErrorType != "" {
			return resp, nil, &v1.Error{Type: account.ErrorType, Msg: account.Error}
		}
	case code/100 == 3, code == http.StatusUnauthorized, code == http.StatusForbidden, code == http.StatusNotFound, code == http.StatusTooManyRequests, code == http.StatusRequestEntityTooLarge:
		return resp, nil, &statusError{status: code}
	}
	if !valued(body) {
		return resp, nil, errNoResult
	}
	return resp, body, nil
}

// valued reports whether each sample of a vector has its value. The client reads a
// null, and what isn't there, as zero. Other malformed answers are its to refuse.
func valued(body []byte) bool {
	var answer struct {
		Data struct {
			ResultType string          `json:"resultType"`
			Result     json.RawMessage `json:"result"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Data.ResultType != model.ValVector.String() {
		return true
	}
	var samples []struct {
		Value     []json.RawMessage `json:"value"`
		Histogram json.RawMessage   `json:"histogram"`
	}
	if json.Unmarshal(answer.Data.Result, &samples) != nil {
		return true
	}
	for _, s := range samples {
		if len(s.Value) > 0 && (len(s.Value) != 2 || isNull(s.Value[1])) {
			return false
		}
		if bytes.Contains(s.Histogram, []byte("null")) && !isNull(s.Histogram) {
			return false
		}
	}
	return true
}

func isNull(raw json.RawMessage) bool { return string(bytes.TrimSpace(raw)) == "null" }

// secrets masks what must not be shown, wherever a server repeats it.
type secrets struct {
	mu   sync.Mutex
	list []string
}

// kept bounds how many secrets are remembered; renewed tokens replace old ones.
const kept = 64

func (s *secrets) add(values ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, v := range values {
		if v != "" && !slices.Contains(s.list, v) {
			s.list = append(s.list, v)
		}
	}
	s.list = s.list[max(0, len(s.list)-kept):]
}

func (s *secrets) mask(text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	// The longest first: one may be part of another.
	for _, v := range slices.SortedFunc(slices.Values(s.list), func(a, b string) int { return cmp.Compare(len(b), len(a)) }) {
		text = strings.ReplaceAll(text, v, "…")
	}
	return clip(text)
}

// maxText bounds what is kept of a text that the server wrote, in bytes.
const maxText = 2000

func clip(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "") + "…"
}
