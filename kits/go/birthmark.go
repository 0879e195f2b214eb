// Package birthmark runs a Birthmark test server for Go tests: DPS, IoT Hub, AWS IoT Core, and an EST CA.
//
// The command birthmark must be on the PATH. The server ends with the test that started it.
package birthmark

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// Version is the version of the kit, and of the birthmark command that it belongs to.
const Version = "0.3.0"

const endPatience = 10 * time.Second

// Fields are the fields of a command; `birthmark test-server` lists them in response to help.
type Fields map[string]any

// Error is a rejected command.
type Error struct {
	Code    string `json:"error"`
	Message string `json:"message"`
	Cause   string `json:"cause"`
	Fix     string `json:"fix"`
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s %s %s", e.Code, e.Message, e.Cause, e.Fix)
}

// Server is a test server. Its methods end the test if the server rejects a command.
type Server struct {
	Endpoints Endpoints

	process *process
	t       testing.TB
}

type process struct {
	mutex  sync.Mutex
	input  io.WriteCloser
	output *bufio.Reader
}

// Start starts a server for this test, with further options of `birthmark test-server`.
func Start(t testing.TB, options ...string) *Server {
	t.Helper()
	command := exec.Command("birthmark", append([]string{"test-server", "--json"}, options...)...)
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	require(t, err)
	output, err := command.StdoutPipe()
	require(t, err)
	require(t, command.Start())
	t.Cleanup(func() {
		input.Close() // ends the server
		late := time.AfterFunc(endPatience, func() { command.Process.Kill() })
		defer late.Stop()
		command.Wait()
	})
	server := &Server{process: &process{input: input, output: bufio.NewReader(output)}, t: t}
	require(t, server.process.read(&server.Endpoints))
	return server
}

// With resets the server for a subtest, and returns it for that subtest.
func (s *Server) With(t testing.TB) *Server {
	t.Helper()
	return &Server{do[Endpoints](t, s.process, "reset", nil), s.process, t}
}

// AzureDevice creates a device; fields: auth (x509, key), at (dps, hub), lasts, certificate_file, key_file.
func (s *Server) AzureDevice(name string, fields Fields) Device {
	s.t.Helper()
	return do[Device](s.t, s.process, "azure-device", named(name, fields))
}

// AwsThing creates a thing with a certificate; fields: action, policy, lasts, certificate_file, key_file.
func (s *Server) AwsThing(name string, fields Fields) Thing {
	s.t.Helper()
	return do[Thing](s.t, s.process, "aws-thing", named(name, fields))
}

// EstIdentity issues a certificate of the server's CA over EST.
func (s *Server) EstIdentity(name string) EstIdentity {
	s.t.Helper()
	return do[EstIdentity](s.t, s.process, "est-identity", named(name, nil))
}

// Chip creates a simulated secure element: se050, atecc608, or generic.
func (s *Server) Chip(name, kind string) Chip {
	s.t.Helper()
	return do[Chip](s.t, s.process, "chip", Fields{"name": name, "kind": kind})
}

// Refuse rejects a device with this code from now on.
func (s *Server) Refuse(name, code string) {
	s.t.Helper()
	s.Fault("refuse", Fields{"name": name, "code": code})
}

// Fault runs refuse, expire, revoke, clock, line, throttle, or rollover with its fields.
func (s *Server) Fault(command string, fields Fields) {
	s.t.Helper()
	do[any](s.t, s.process, command, fields)
}

// Messages lists the messages of a device; with the field at = aws, those of a thing.
func (s *Server) Messages(name string, fields Fields) []Message {
	s.t.Helper()
	return do[items[Message]](s.t, s.process, "messages", named(name, fields)).Items
}

// Why lists the refusals of a device, the latest first, and waits for them; fields: code, limit, within_s.
func (s *Server) Why(name string, fields Fields) []Refusal {
	s.t.Helper()
	return do[items[Refusal]](s.t, s.process, "why", named(name, fields)).Items
}

// TLS returns a client configuration that trusts the server, with the certificate of files if there is one.
func (s *Server) TLS(files Files) *tls.Config {
	s.t.Helper()
	roots, err := os.ReadFile(s.Endpoints.TrustBundle)
	require(s.t, err)
	config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	config.RootCAs.AppendCertsFromPEM(roots)
	if files.CertificateFile != "" {
		certificate, err := tls.LoadX509KeyPair(files.CertificateFile, files.KeyFile)
		require(s.t, err)
		config.Certificates = []tls.Certificate{certificate}
	}
	return config
}

// Ask runs any command, and decodes its result unless result is nil. It returns an *Error for a rejected one.
func (s *Server) Ask(command string, fields Fields, result any) error {
	return s.process.ask(command, fields, result)
}

func (p *process) ask(command string, fields Fields, result any) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	word := Fields{"do": command}
	maps.Copy(word, fields)
	if err := json.NewEncoder(p.input).Encode(word); err != nil {
		return err
	}
	return p.read(result)
}

func (p *process) read(result any) error {
	line, err := p.output.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the server has ended: %w", err)
	}
	rejected := &Error{}
	if err := json.Unmarshal(line, rejected); err != nil {
		return fmt.Errorf("not a result: %s: %w", line, err)
	}
	if rejected.Code != "" {
		return rejected
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(line, result)
}

func do[T any](t testing.TB, p *process, command string, fields Fields) (result T) {
	t.Helper()
	require(t, p.ask(command, fields, &result))
	return result
}

func named(name string, fields Fields) Fields {
	word := Fields{"name": name}
	maps.Copy(word, fields)
	return word
}

func require(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
