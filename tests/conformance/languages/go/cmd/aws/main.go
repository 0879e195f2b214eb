// The AWS SDK for Go as an operator of things; endpoint, credentials and CA come from the SDK's own variables.
package main

import (
	"context"
	"errors"
	"os"

	"birthmark/languages/device"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iotdataplane"
)

var (
	thing   = os.Getenv("THING")
	payload = []byte(os.Getenv("PAYLOAD"))
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), device.Patience)
	defer cancel()
	settings, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		device.Exit(err)
	}
	result, err := run(ctx, os.Args[1], iot.NewFromConfig(settings), iotdataplane.NewFromConfig(settings))
	if err != nil {
		device.Exit(err)
	}
	device.Print(result)
}

func run(ctx context.Context, operation string, control *iot.Client, data *iotdataplane.Client) (any, error) {
	switch operation {
	case "create":
		return create(ctx, control)
	case "describe":
		return describe(ctx, control)
	case "certificate":
		return certificate(ctx, control)
	case "job":
		return job(ctx, control)
	case "shadow":
		return shadow(ctx, data)
	case "publish":
		return publish(ctx, data)
	}
	return nil, errors.New("no such operation: " + operation)
}

func create(ctx context.Context, control *iot.Client) (any, error) {
	made, err := control.CreateThing(ctx, &iot.CreateThingInput{ThingName: &thing})
	if err != nil {
		return nil, err
	}
	return map[string]string{"arn": *made.ThingArn}, nil
}

func describe(ctx context.Context, control *iot.Client) (any, error) {
	found, err := control.DescribeThing(ctx, &iot.DescribeThingInput{ThingName: &thing})
	if err != nil {
		return nil, err
	}
	return map[string]any{"arn": *found.ThingArn, "version": found.Version}, nil
}

func certificate(ctx context.Context, control *iot.Client) (any, error) {
	made, err := control.CreateKeysAndCertificate(ctx, &iot.CreateKeysAndCertificateInput{SetAsActive: true})
	if err != nil {
		return nil, err
	}
	attachment := &iot.AttachThingPrincipalInput{ThingName: &thing, Principal: made.CertificateArn}
	if _, err := control.AttachThingPrincipal(ctx, attachment); err != nil {
		return nil, err
	}
	grant := &iot.AttachPolicyInput{PolicyName: aws.String(os.Getenv("POLICY")), Target: made.CertificateArn}
	if _, err := control.AttachPolicy(ctx, grant); err != nil {
		return nil, err
	}
	return map[string]string{"certificate": *made.CertificatePem, "key": *made.KeyPair.PrivateKey}, nil
}

func job(ctx context.Context, control *iot.Client) (any, error) {
	order := &iot.CreateJobInput{
		JobId:    aws.String(os.Getenv("JOB")),
		Targets:  []string{os.Getenv("TARGET")},
		Document: aws.String(string(payload)),
	}
	if _, err := control.CreateJob(ctx, order); err != nil {
		return nil, err
	}
	found, err := control.DescribeJob(ctx, &iot.DescribeJobInput{JobId: order.JobId})
	if err != nil {
		return nil, err
	}
	return map[string]string{"status": string(found.Job.Status)}, nil
}

func shadow(ctx context.Context, data *iotdataplane.Client) (any, error) {
	update := &iotdataplane.UpdateThingShadowInput{ThingName: &thing, Payload: payload}
	if _, err := data.UpdateThingShadow(ctx, update); err != nil {
		return nil, err
	}
	found, err := data.GetThingShadow(ctx, &iotdataplane.GetThingShadowInput{ThingName: &thing})
	if err != nil {
		return nil, err
	}
	return map[string]string{"shadow": string(found.Payload)}, nil
}

func publish(ctx context.Context, data *iotdataplane.Client) (any, error) {
	message := &iotdataplane.PublishInput{Topic: aws.String(os.Getenv("PUBLISH")), Qos: 1, Payload: payload}
	_, err := data.Publish(ctx, message)
	return map[string]bool{"published": err == nil}, err
}
