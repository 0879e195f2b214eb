"""Stay connected to IoT Hub by azure-iot-device, with an identity that the agent inside this program keeps.

    python examples/agent_azure.py CONFIG ROOT

CONFIG is a config.toml as for `birthmark agent`, ROOT where certificate and key are kept. With each renewal the client
is made anew from the files; Ctrl-C ends it.
"""

import asyncio
import json
import sys

from azure.iot.device import X509, Message
from azure.iot.device.aio import IoTHubDeviceClient
from azure.iot.device.exceptions import ClientError

from birthmark.agent import AgentDevice, Identity, connect


def client_of(identity: Identity) -> IoTHubDeviceClient:
    x509 = X509(cert_file=str(identity.certificate_file), key_file=str(identity.key_file))
    return IoTHubDeviceClient.create_from_x509_certificate(x509, identity.hub, identity.device_id)


async def main(config: str, root: str) -> None:
    async with connect(config, root=root) as device:
        await talk(device, device.identity)
        async for identity in device.renewals():
            await talk(device, identity)


async def talk(device: AgentDevice, identity: Identity) -> None:
    """Send something every second until the identity is renewed."""
    client = client_of(identity)
    await client.connect()
    print(json.dumps({"connected": identity.thumbprint}), flush=True)
    while device.identity is identity:
        message = Message(json.dumps({"thumbprint": identity.thumbprint}))
        try:
            await asyncio.wait_for(client.send_message(message), 5)
        except (ClientError, TimeoutError) as error:  # the renewal's proof ended this connection
            print(json.dumps({"not sent": type(error).__name__}), flush=True)
        await asyncio.sleep(1)
    await client.shutdown()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
