package birthmark_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	birthmark "github.com/birthmark/birthmark/kits/go"
)

func TestServer(t *testing.T) {
	shared := birthmark.Start(t)

	t.Run("a device sends a message with its certificate", func(t *testing.T) {
		server := shared.With(t)
		device := server.AzureDevice("pump-1", birthmark.Fields{"at": "hub"})
		client := http.Client{Transport: &http.Transport{TLSClientConfig: server.TLS(device.Files)}}
		response, err := client.Post(telemetry(server, device), "text/plain", strings.NewReader("hello"))
		if err != nil || response.StatusCode != http.StatusNoContent {
			t.Fatal(response, err)
		}
		if sent := server.Messages("pump-1", nil); len(sent) != 1 || sent[0].Body != "hello" {
			t.Fatal(sent)
		}
	})

	t.Run("a subtest has no devices of another", func(t *testing.T) {
		server := shared.With(t)
		var told struct{ Known bool }
		if err := server.Ask("known", birthmark.Fields{"name": "pump-1"}, &told); err != nil || told.Known {
			t.Fatal(told, err)
		}
	})

	t.Run("a device with a symmetric key has a connection string", func(t *testing.T) {
		device := shared.With(t).AzureDevice("pump-1", birthmark.Fields{"at": "hub", "auth": "key"})
		if !strings.Contains(device.ConnectionString, device.SymmetricKey) || device.Files.KeyFile != "" {
			t.Fatal(device)
		}
	})

	t.Run("a thing and an EST identity have certificates of their names", func(t *testing.T) {
		server := shared.With(t)
		for _, files := range []birthmark.Files{server.AwsThing("pump-1", nil).Files, server.EstIdentity("pump-1").Files} {
			if name := subject(t, files.CertificateFile); name != "pump-1" {
				t.Fatal(name)
			}
		}
	})

	t.Run("a chip names its PKCS#11 library", func(t *testing.T) {
		chip := shared.With(t).Chip("chip-1", "atecc608")
		if chip.Environment["BIRTHMARK_PKCS11_MODULE"] == "" || chip.CertificateFile == "" {
			t.Fatal(chip)
		}
	})

	t.Run("a refused device does not connect, and Why has the code", func(t *testing.T) {
		server := shared.With(t)
		device := server.AzureDevice("pump-1", birthmark.Fields{"at": "hub"})
		server.Refuse("pump-1", "iothub.device_disabled")
		client := http.Client{Transport: &http.Transport{TLSClientConfig: server.TLS(device.Files)}}
		response, err := client.Post(telemetry(server, device), "text/plain", nil)
		if err == nil && response.StatusCode < 400 {
			t.Fatal(response.Status)
		}
		if why := server.Why("pump-1", nil); len(why) == 0 || why[0].Code != "iothub.device_disabled" {
			t.Fatal(why)
		}
	})

	t.Run("a command without a result to decode runs", func(t *testing.T) {
		if err := shared.With(t).Ask("clock", birthmark.Fields{"by": "+1h"}, nil); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("a rejected command is an error with its fix", func(t *testing.T) {
		var rejected *birthmark.Error
		err := shared.With(t).Ask("expire", birthmark.Fields{"name": "unknown"}, nil)
		if !errors.As(err, &rejected) || rejected.Code != "testing.subject_unknown" || rejected.Fix == "" {
			t.Fatal(err)
		}
	})
}

func TestTheServerEndsWithItsTest(t *testing.T) {
	var url string
	t.Run("test", func(t *testing.T) { url = birthmark.Start(t).Endpoints.EST["url"].(string) })
	_, err := http.Get(url)
	if err == nil || !strings.Contains(err.Error(), "refused") {
		t.Fatal(err)
	}
}

func telemetry(server *birthmark.Server, device birthmark.Device) string {
	const api = "api-version=2020-09-30"
	port := server.Endpoints.IoTHub["https_port"]
	return fmt.Sprintf("https://%s:%v/devices/%s/messages/events?%s", device.HubHost, port, device.Name, api)
}

func subject(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return certificate.Subject.CommonName
}
