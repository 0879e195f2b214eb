// Paho's client of MQTT 5 as a device.
package main

import (
	"context"
	"errors"
	"io"
	"net/url"
	"os"
	"time"

	"birthmark/languages/device"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
)

func main() {
	device.Exit(run(os.Args[1]))
}

func run(operation string) error {
	config, err := device.TLS()
	if err != nil {
		return err
	}
	context, cancel := context.WithCancel(context.Background())
	defer cancel()
	received := make(chan *paho.Publish, 100)
	failed := make(chan error, 1)
	manager, err := autopaho.NewConnection(context, autopaho.ClientConfig{
		ServerUrls:                    []*url.URL{{Scheme: "tls", Host: os.Getenv("HOST")}},
		TlsCfg:                        config,
		KeepAlive:                     30,
		CleanStartOnInitialConnection: true,
		ConnectUsername:               os.Getenv("USERNAME"),
		ConnectPassword:               []byte(os.Getenv("PASSWORD")),
		ReconnectBackoff:              func(int) time.Duration { return time.Second },
		OnConnectError: func(err error) {
			select {
			case failed <- err:
			default:
			}
		},
		OnConnectionUp: func(manager *autopaho.ConnectionManager, _ *paho.Connack) {
			if operation == "listen" {
				go resubscribe(context, manager)
			}
		},
		ClientConfig: paho.ClientConfig{
			ClientID: os.Getenv("CLIENT_ID"),
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){
				func(got paho.PublishReceived) (bool, error) {
					received <- got.Packet
					return true, nil
				},
			},
		},
	})
	if err != nil {
		return err
	}
	if err := connected(context, manager, failed); err != nil {
		return err
	}
	defer func() { _ = manager.Disconnect(context) }()
	switch operation {
	case "publish":
		return publish(context, manager)
	case "exchange":
		return exchange(context, manager, received)
	case "listen":
		return listen(received)
	}
	return errors.New("no such operation: " + operation)
}

// connected waits for the first connection; the manager itself would retry for ever.
func connected(ctx context.Context, manager *autopaho.ConnectionManager, failed <-chan error) error {
	up := make(chan error, 1)
	go func() { up <- manager.AwaitConnection(ctx) }()
	select {
	case err := <-up:
		return err
	case err := <-failed:
		return err
	case <-time.After(device.Patience):
		return errors.New("the server did not answer")
	}
}

func exchange(ctx context.Context, manager *autopaho.ConnectionManager, received <-chan *paho.Publish) error {
	if err := subscribe(ctx, manager); err != nil {
		return err
	}
	if err := publish(ctx, manager); err != nil {
		return err
	}
	select {
	case message := <-received:
		tell(message)
		return nil
	case <-time.After(device.Patience):
		return errors.New("no message arrived")
	}
}

func listen(received <-chan *paho.Publish) error {
	go func() {
		for message := range received {
			tell(message)
		}
	}()
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func resubscribe(ctx context.Context, manager *autopaho.ConnectionManager) {
	if err := subscribe(ctx, manager); err != nil {
		device.Exit(err)
	}
	device.Print(map[string]bool{"subscribed": true})
}

func subscribe(ctx context.Context, manager *autopaho.ConnectionManager) error {
	filter := paho.SubscribeOptions{Topic: os.Getenv("SUBSCRIBE"), QoS: 1}
	_, err := manager.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{filter}})
	return err
}

func publish(ctx context.Context, manager *autopaho.ConnectionManager) error {
	message := &paho.Publish{Topic: os.Getenv("PUBLISH"), QoS: 1, Payload: []byte(os.Getenv("PAYLOAD"))}
	_, err := manager.Publish(ctx, message)
	return err
}

func tell(message *paho.Publish) {
	device.Print(device.Message{Topic: message.Topic, Payload: string(message.Payload)})
}
