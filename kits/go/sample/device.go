// Package device is a device of IoT Hub that sends telemetry over MQTT.
package device

import (
	"crypto/tls"
	"errors"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// Send connects to a hub with the certificate in config, and sends one message.
func Send(hub, name string, config *tls.Config, body string) error {
	options := mqtt.NewClientOptions().AddBroker("ssl://" + hub + ":8883").SetClientID(name).SetTLSConfig(config)
	options.SetUsername(hub + "/" + name + "/?api-version=2021-04-12")
	options.SetProtocolVersion(4) // MQTT 3.1.1; by default, the client retries a rejected connection with MQTT 3.1
	client := mqtt.NewClient(options)
	if err := wait(client.Connect()); err != nil {
		return err
	}
	defer client.Disconnect(250)
	return wait(client.Publish("devices/"+name+"/messages/events/", 1, false, body))
}

func wait(token mqtt.Token) error {
	if !token.WaitTimeout(20 * time.Second) {
		return errors.New("no response from the hub")
	}
	return token.Error()
}
