// Paho's client of MQTT 3.1.1 as a device.
package main

import (
	"errors"
	"io"
	"os"
	"time"

	"birthmark/languages/device"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

func main() {
	device.Exit(run(os.Args[1]))
}

func run(operation string) error {
	config, err := device.TLS()
	if err != nil {
		return err
	}
	received := make(chan mqtt.Message, 100)
	options := mqtt.NewClientOptions().
		AddBroker("ssl://" + os.Getenv("HOST")).
		SetClientID(os.Getenv("CLIENT_ID")).
		SetUsername(os.Getenv("USERNAME")).
		SetPassword(os.Getenv("PASSWORD")).
		SetTLSConfig(config).
		SetMaxReconnectInterval(time.Second).
		SetDefaultPublishHandler(func(_ mqtt.Client, message mqtt.Message) { received <- message })
	if operation == "listen" || operation == "answer" {
		options.SetOnConnectHandler(func(client mqtt.Client) {
			if err := subscribe(client); err != nil {
				device.Exit(err)
			}
			device.Print(map[string]bool{"subscribed": true})
		})
	}
	client := mqtt.NewClient(options)
	if err := done(client.Connect()); err != nil {
		return err
	}
	defer client.Disconnect(100)
	switch operation {
	case "publish":
		return publish(client)
	case "exchange":
		return exchange(client, received)
	case "listen":
		return listen(received, func(mqtt.Message) {})
	case "answer":
		return listen(received, func(message mqtt.Message) {
			client.Publish(device.AnswerTopic(message.Topic()), 1, false, os.Getenv("PAYLOAD"))
		})
	}
	return errors.New("no such operation: " + operation)
}

func exchange(client mqtt.Client, received <-chan mqtt.Message) error {
	if err := subscribe(client); err != nil {
		return err
	}
	if err := publish(client); err != nil {
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

func listen(received <-chan mqtt.Message, answer func(mqtt.Message)) error {
	go func() {
		for message := range received {
			tell(message)
			answer(message)
		}
	}()
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func subscribe(client mqtt.Client) error {
	filter := os.Getenv("SUBSCRIBE")
	token := client.Subscribe(filter, 1, nil)
	if err := done(token); err != nil {
		return err
	}
	if token.(*mqtt.SubscribeToken).Result()[filter] > 2 {
		return errors.New("the subscription was refused")
	}
	return nil
}

func publish(client mqtt.Client) error {
	return done(client.Publish(os.Getenv("PUBLISH"), 1, false, os.Getenv("PAYLOAD")))
}

func tell(message mqtt.Message) {
	device.Print(device.Message{Topic: message.Topic(), Payload: string(message.Payload())})
}

func done(token mqtt.Token) error {
	if !token.WaitTimeout(device.Patience) {
		return errors.New("the server did not answer")
	}
	return token.Error()
}
