// The Azure SDK for Go as a storage client that writes and reads files of a hub.
package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"

	"birthmark/languages/device"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
)

const blockSize = 64 * 1024

type file struct {
	Name     string             `json:"name"`
	Size     int64              `json:"size"`
	Metadata map[string]*string `json:"metadata"`
}

func main() {
	device.Exit(run(os.Args[1]))
}

func run(operation string) error {
	config, err := device.TLS()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), device.Patience)
	defer cancel()
	options := policy.ClientOptions{
		Transport: &http.Client{Transport: &http.Transport{TLSClientConfig: config}},
		Retry:     policy.RetryOptions{MaxRetries: -1},
	}
	if operation == "upload" {
		return upload(ctx, options)
	}
	files, err := container.NewClientWithNoCredential(
		os.Getenv("CONTAINER_URL"), &container.ClientOptions{ClientOptions: options})
	if err != nil {
		return err
	}
	name := os.Getenv("NAME")
	switch operation {
	case "create":
		_, err := files.Create(ctx, nil)
		return err
	case "list":
		return list(ctx, files)
	case "download":
		return download(ctx, files.NewBlobClient(name))
	case "properties":
		found, err := files.NewBlobClient(name).GetProperties(ctx, nil)
		if err == nil {
			device.Print(file{name, *found.ContentLength, found.Metadata})
		}
		return err
	case "delete":
		_, err := files.NewBlobClient(name).Delete(ctx, nil)
		return err
	}
	return errors.New("no such operation: " + operation)
}

// upload writes COUNT blocks of one letter each to the blob at BLOB_URL.
func upload(ctx context.Context, options policy.ClientOptions) error {
	client, err := blockblob.NewClientWithNoCredential(
		os.Getenv("BLOB_URL"), &blockblob.ClientOptions{ClientOptions: options})
	if err != nil {
		return err
	}
	var data bytes.Buffer
	for _, letter := range os.Getenv("LETTERS") {
		data.WriteString(strings.Repeat(string(letter), blockSize))
	}
	_, err = client.UploadStream(ctx, &data, &blockblob.UploadStreamOptions{
		BlockSize:   blockSize,
		Concurrency: 2,
		Metadata:    map[string]*string{"site": to.Ptr("north")},
	})
	return err
}

func list(ctx context.Context, files *container.Client) error {
	pages := files.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{
		Include:    container.ListBlobsInclude{Metadata: true},
		MaxResults: to.Ptr(int32(1)),
	})
	found := []file{}
	for pages.More() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, one := range page.Segment.BlobItems {
			found = append(found, file{*one.Name, *one.Properties.ContentLength, one.Metadata})
		}
	}
	device.Print(map[string]any{"files": found})
	return nil
}

// download prints the first letter of each block, and the two letters at the end of the first block.
func download(ctx context.Context, client *blob.Client) error {
	data, err := read(ctx, client, blob.HTTPRange{})
	if err != nil {
		return err
	}
	letters := ""
	for place := 0; place < len(data); place += blockSize {
		letters += string(data[place])
	}
	middle, err := read(ctx, client, blob.HTTPRange{Offset: blockSize - 1, Count: 2})
	if err != nil {
		return err
	}
	device.Print(map[string]string{"letters": letters, "middle": string(middle)})
	return nil
}

func read(ctx context.Context, client *blob.Client, part blob.HTTPRange) ([]byte, error) {
	got, err := client.DownloadStream(ctx, &blob.DownloadStreamOptions{Range: part})
	if err != nil {
		return nil, err
	}
	defer func() { _ = got.Body.Close() }()
	return io.ReadAll(got.Body)
}
