"""The first message at each cloud: a device at Azure's hub and a thing at AWS IoT Core, by the vendors' SDKs alone.

Takes azure-iot-device, awsiotsdk and boto3, and the environment that `birthmark env` prints. The device is put on
record by the hub's REST interface, the thing by boto3.
"""

import base64
import hashlib
import hmac
import json
import os
import ssl
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote

import boto3
from awscrt import mqtt
from awsiot import mqtt_connection_builder
from azure.iot.device import IoTHubDeviceClient

TRUST = os.environ["NODE_EXTRA_CA_CERTS"]
EVERYTHING = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": "*"}]}


def device_at_hub(name: str) -> str:
    """Put a device on record at the hub; return its connection string."""
    hub = dict(part.split("=", 1) for part in os.environ["IOTHUB_CONNECTION_STRING"].split(";"))
    host, until = hub["HostName"], int(time.time()) + 300  # noqa: TID251 - a program of its own
    signed = hmac.digest(
        base64.b64decode(hub["SharedAccessKey"]), f"{quote(host, '')}\n{until}".encode(), hashlib.sha256
    )
    token = f"SharedAccessSignature sr={quote(host, '')}&sig={quote(base64.b64encode(signed), '')}&se={until}"
    request = urllib.request.Request(
        f"https://{host}/devices/{name}?api-version=2021-04-12",
        json.dumps({"deviceId": name}).encode(),
        {"Authorization": f"{token}&skn={hub['SharedAccessKeyName']}", "Content-Type": "application/json"},
        method="PUT",
    )
    with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=TRUST)) as answer:  # noqa: S310
        key = json.load(answer)["authentication"]["symmetricKey"]["primaryKey"]
    return f"HostName={host.partition(':')[0]};DeviceId={name};SharedAccessKey={key}"


def azure(name: str) -> None:
    """Send a message as Microsoft's SDK does it."""
    client = IoTHubDeviceClient.create_from_connection_string(
        device_at_hub(name), server_verification_cert=Path(TRUST).read_text()
    )
    client.connect()
    client.send_message("hello")
    client.shutdown()
    print(f"Azure: {name} sent a message to its hub")


def aws(name: str) -> None:
    """Publish a message as Amazon's SDK does it."""
    iot = boto3.client("iot")
    made = iot.create_keys_and_certificate(setAsActive=True)
    iot.create_thing(thingName=name)
    iot.create_policy(policyName=f"{name}-all", policyDocument=json.dumps(EVERYTHING))
    iot.attach_policy(policyName=f"{name}-all", target=made["certificateArn"])
    iot.attach_thing_principal(thingName=name, principal=made["certificateArn"])
    host, _, port = iot.describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"].partition(":")
    connection = mqtt_connection_builder.mtls_from_bytes(
        made["certificatePem"].encode(),
        made["keyPair"]["PrivateKey"].encode(),
        client_id=name,
        endpoint=host,
        port=int(port or 8883),
        ca_filepath=TRUST,
    )
    connection.connect().result(20)
    connection.publish(f"{name}/hello", "hello", mqtt.QoS.AT_LEAST_ONCE)[0].result(20)
    connection.disconnect().result(20)
    print(f"AWS: {name} published a message, and it was acknowledged")


if __name__ == "__main__":
    number = int(time.time())  # noqa: TID251 - a program of its own
    azure(f"device-{number}")
    aws(f"thing-{number}")
