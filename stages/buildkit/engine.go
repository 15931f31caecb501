package buildkit

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/stages"
)

// engine speaks the few words of the Docker Engine API that a build needs:
// https://docs.docker.com/reference/api/engine/
type engine struct {
	network, address string
	tls              *tls.Config
	http             *http.Client
}

func newEngine(host string, config *tls.Config) (*engine, error) {
	u, err := url.Parse(host)
	if err != nil {
		return nil, fmt.Errorf("%w: the address of Docker Engine is no URL", stages.ErrInvalid)
	}
	e := &engine{network: u.Scheme, address: u.Host, tls: config}
	if u.Scheme == "unix" {
		e.address = u.Path
	}
	e.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return e.dial(ctx) },
	}}
	return e, nil
}

func (e *engine) close() { e.http.CloseIdleConnections() }

func (e *engine) dial(ctx context.Context) (net.Conn, error) {
	if e.tls != nil {
		return (&tls.Dialer{Config: e.tls}).DialContext(ctx, e.network, e.address)
	}
	return new(net.Dialer).DialContext(ctx, e.network, e.address)
}

// request returns a request to the engine; its host is a formality.
func request(ctx context.Context, path string, query url.Values) (*http.Request, error) {
	u := url.URL{Scheme: "http", Host: "docker", Path: path, RawQuery: query.Encode()}
	return http.NewRequestWithContext(ctx, http.MethodPost, u.String(), nil)
}

// dialGRPC opens a connection to the engine's BuildKit.
func (e *engine) dialGRPC(ctx context.Context, _ string) (net.Conn, error) {
	return e.hijack(ctx, "/grpc", "h2c", nil)
}

// dialSession opens the connection on which BuildKit asks back.
func (e *engine) dialSession(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
	return e.hijack(ctx, "/session", proto, meta)
}

// hijack asks the engine to make an HTTP connection one of another protocol.
func (e *engine) hijack(ctx context.Context, path, proto string, headers map[string][]string) (_ net.Conn, err error) {
	req, err := request(ctx, path, nil)
	if err != nil {
		return nil, err
	}
	for name, values := range headers {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", proto)

	conn, err := e.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	// The exchange below knows no context, but deadlines.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	if err = req.Write(conn); err != nil {
		return nil, fmt.Errorf("ask Docker Engine for %s: %w", path, err)
	}
	buffered := bufio.NewReader(conn)
	response, err := http.ReadResponse(buffered, req)
	if err != nil {
		return nil, fmt.Errorf("ask Docker Engine for %s: %w", path, err)
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		defer response.Body.Close()
		return nil, fmt.Errorf("ask Docker Engine for %s: %w", path, engineError(response))
	}
	if !stop() {
		return nil, context.Cause(ctx)
	}
	return &hijacked{Conn: conn, reader: buffered}, nil
}

// hijacked is a connection of which a part may have been read ahead.
type hijacked struct {
	net.Conn
	reader *bufio.Reader
}

func (h *hijacked) Read(p []byte) (int, error) { return h.reader.Read(p) }

// engineError is what the engine said in place of what it was asked for.
func engineError(response *http.Response) error {
	var body struct{ Message string }
	const limit = 64 << 10
	text, err := io.ReadAll(io.LimitReader(response.Body, limit))
	if err != nil || json.Unmarshal(text, &body) != nil || body.Message == "" {
		return errors.New(response.Status)
	}
	return fmt.Errorf("%s: %s", response.Status, body.Message)
}

// push has the engine push repository under each tag, and returns the digest
// that it reports. Tags of one build share it.
func (e *engine) push(ctx context.Context, repository string, tags []string, auth *authServer) (digest string, err error) {
	host, _, _ := strings.Cut(repository, "/")
	credentials, err := auth.find(ctx, host)
	if err != nil {
		return "", err
	}
	header, err := registryAuth(host, credentials)
	if err != nil {
		return "", err
	}
	auth.redactor.add(header)
	for _, tag := range tags {
		name := repository + ":" + tag
		stages.ReportProgress(ctx, stages.Progress{ID: "push " + name, Message: "pushing " + name})
		pushed, err := e.pushTag(ctx, repository, tag, header)
		if err != nil {
			return "", fmt.Errorf("push %s: %w", name, err)
		}
		if digest != "" && pushed != digest {
			return "", fmt.Errorf("push %s: Docker Engine pushed %s, after %s for the tag before: somebody moved the tag in its store meanwhile; build again", name, pushed, digest)
		}
		digest = pushed
		stages.ReportProgress(ctx, stages.Progress{ID: "push " + name, Message: "pushed " + name + "@" + pushed})
	}
	return digest, nil
}

func (e *engine) pushTag(ctx context.Context, repository, tag, header string) (string, error) {
	req, err := request(ctx, "/images/"+repository+"/push", url.Values{"tag": {tag}})
	if err != nil {
		return "", err
	}
	req.Header.Set("X-Registry-Auth", header)
	response, err := e.http.Do(req)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", engineError(response)
	}
	return readPush(response.Body)
}

// readPush reads the engine's report of a push, a stream of JSON objects, for
// the digest in it.
func readPush(r io.Reader) (digest string, err error) {
	messages := json.NewDecoder(r)
	for {
		var message struct {
			Error string `json:"error"`
			Aux   struct{ Digest string }
		}
		switch err := messages.Decode(&message); {
		case errors.Is(err, io.EOF) && digest == "":
			return "", errors.New("Docker Engine did not report a digest")
		case errors.Is(err, io.EOF):
			return digest, nil
		case err != nil:
			return "", fmt.Errorf("read the report of Docker Engine: %w", err)
		case message.Error != "":
			return "", registryFailure(errors.New(message.Error))
		}
		if message.Aux.Digest != "" {
			digest = message.Aux.Digest
		}
	}
}

// registryAuth encodes credentials as the engine's X-Registry-Auth header, which
// must be there even if empty.
func registryAuth(host string, c Credentials) (string, error) {
	var text bytes.Buffer
	err := json.NewEncoder(&text).Encode(map[string]string{
		"username": c.Username, "password": c.Password, "identitytoken": c.IdentityToken, "serveraddress": host,
	})
	if err != nil {
		return "", fmt.Errorf("encode credentials for %s: %w", host, err)
	}
	return base64.URLEncoding.EncodeToString(text.Bytes()), nil
}
