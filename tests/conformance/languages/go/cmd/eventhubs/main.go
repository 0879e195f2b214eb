// The Azure SDK for Go as a back end that reads a hub's telemetry from its Event Hubs-compatible endpoint.
package main

import (
	"context"
	"errors"
	"io"
	"os"

	"birthmark/languages/device"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
)

type event struct {
	Body     string `json:"body"`
	Device   any    `json:"device"`
	Sequence int64  `json:"sequence"`
}

func main() {
	device.Exit(run(os.Args[1]))
}

func run(operation string) error {
	config, err := device.TLS()
	if err != nil {
		return err
	}
	options := &azeventhubs.ConsumerClientOptions{TLSConfig: config}
	if operation != "listen" {
		options.RetryOptions.MaxRetries = -1
	}
	consumer, err := azeventhubs.NewConsumerClientFromConnectionString(
		os.Getenv("EVENT_HUB"), "", os.Getenv("CONSUMER_GROUP"), options)
	if err != nil {
		return err
	}
	defer func() { _ = consumer.Close(context.Background()) }()
	ctx, cancel := context.WithTimeout(context.Background(), device.Patience)
	defer cancel()
	hub, err := consumer.GetEventHubProperties(ctx, nil)
	if err != nil {
		return err
	}
	switch operation {
	case "describe":
		device.Print(map[string]any{"name": hub.Name, "partitions": hub.PartitionIDs})
		return nil
	case "listen":
		return listen(consumer, hub.PartitionIDs)
	}
	return errors.New("no such operation: " + operation)
}

// listen prints the events of all partitions, from the first one on, until its input ends or a reader fails.
func listen(consumer *azeventhubs.ConsumerClient, partitions []string) error {
	ended := make(chan error, len(partitions)+1)
	for _, partition := range partitions {
		go func() { ended <- read(consumer, partition) }()
	}
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		ended <- err
	}()
	return <-ended
}

func read(consumer *azeventhubs.ConsumerClient, partition string) error {
	first := azeventhubs.StartPosition{Earliest: to.Ptr(true)}
	reader, err := consumer.NewPartitionClient(partition, &azeventhubs.PartitionClientOptions{StartPosition: first})
	if err != nil {
		return err
	}
	for {
		got, err := reader.ReceiveEvents(context.Background(), 1, nil)
		if err != nil {
			return err
		}
		for _, one := range got {
			sender := one.SystemProperties["iothub-connection-device-id"]
			device.Print(event{Body: string(one.Body), Device: sender, Sequence: one.SequenceNumber})
		}
	}
}
