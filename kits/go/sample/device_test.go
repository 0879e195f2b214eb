package device

import (
	"testing"

	birthmark "github.com/birthmark/birthmark/kits/go"
)

func TestDevice(t *testing.T) {
	shared := birthmark.Start(t)

	t.Run("a device sends a message", func(t *testing.T) {
		server := shared.With(t)
		pump := server.AzureDevice("pump-1", birthmark.Fields{"at": "hub"})
		if err := Send(pump.HubHost, pump.Name, server.TLS(pump.Files), "21.5"); err != nil {
			t.Fatal(err)
		}
		messages := server.Messages("pump-1", nil)
		if len(messages) != 1 || messages[0].Body != "21.5" {
			t.Fatal(messages)
		}
	})

	t.Run("a disabled device does not connect", func(t *testing.T) {
		server := shared.With(t)
		pump := server.AzureDevice("pump-1", birthmark.Fields{"at": "hub"})
		server.Refuse("pump-1", "iothub.device_disabled")
		if err := Send(pump.HubHost, pump.Name, server.TLS(pump.Files), "21.5"); err == nil {
			t.Fatal("the hub accepted a disabled device")
		}
		if why := server.Why("pump-1", nil); why[0].Code != "iothub.device_disabled" {
			t.Fatal(why)
		}
	})
}
