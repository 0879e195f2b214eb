"""Stay connected to AWS IoT Core by awsiotsdk, with an identity that the agent inside this program keeps by EST.

    python examples/agent_aws.py CONFIG ROOT

AWS knows certificates, not names: each renewed one has to be registered there (just in time by its CA, or by whoever
issues). So the program proves it by connecting; until that works, the old one stays, and it is tried again. CONFIG has
`source = "manual"`, with the endpoint as `iothub_hostname` and the thing as `device_id`.
"""

import asyncio
import json
import os
import sys

from awscrt import mqtt
from awscrt.exceptions import AwsCrtError
from awsiot import mqtt_connection_builder

from birthmark.agent import AgentDevice, Identity, connect


def connection_of(identity: Identity) -> mqtt.Connection:
    return mqtt_connection_builder.mtls_from_path(
        cert_filepath=str(identity.certificate_file),
        pri_key_filepath=str(identity.key_file),
        endpoint=str(identity.hub),
        port=8883,
        ca_filepath=os.environ.get("SSL_CERT_FILE"),
        client_id=identity.device_id,
        clean_session=True,
        keep_alive_secs=30,
    )


async def connected(identity: Identity) -> mqtt.Connection:
    """Connect, again and again: AWS ends the first connection of a certificate that is registered just in time."""
    while True:
        connection = connection_of(identity)
        try:
            await asyncio.wrap_future(connection.connect())
        except AwsCrtError as error:
            print(json.dumps({"not connected": error.name}), flush=True)
            await asyncio.sleep(2)
        else:
            return connection


async def prove(identity: Identity) -> None:
    """Connect with a certificate; only one that AWS takes ends the connection in use, which comes back by itself."""
    connection = connection_of(identity)
    await asyncio.wrap_future(connection.connect())
    await asyncio.wrap_future(connection.disconnect())


async def talk(device: AgentDevice, identity: Identity) -> None:
    """Publish something every second until the identity is renewed."""
    connection = await connected(identity)
    print(json.dumps({"connected": identity.thumbprint}), flush=True)
    topic = f"devices/{identity.device_id}/data"
    while device.identity is identity:
        body = json.dumps({"thumbprint": identity.thumbprint})
        await asyncio.wrap_future(connection.publish(topic, body, mqtt.QoS.AT_LEAST_ONCE)[0])
        await asyncio.sleep(1)
    await asyncio.wrap_future(connection.disconnect())


async def main(config: str, root: str) -> None:
    async with connect(config, root=root, prove=prove) as device:
        await talk(device, device.identity)
        async for identity in device.renewals():
            await talk(device, identity)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
