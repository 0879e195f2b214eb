"""Stay connected to an MQTT broker by paho-mqtt, with an identity that the agent inside this program keeps.

    python examples/agent_paho.py CONFIG ROOT

Here the broker is the hub that the provisioning service assigns, so user name and topic are its own; another broker
takes what it likes.
"""

import asyncio
import json
import sys

import paho.mqtt.client as mqtt

from birthmark.agent import AgentDevice, Identity, connect


def client_of(identity: Identity) -> mqtt.Client:
    client = mqtt.Client(client_id=identity.device_id, protocol=mqtt.MQTTv311)
    client.username_pw_set(f"{identity.hub}/{identity.device_id}/?api-version=2021-04-12")
    client.tls_set_context(identity.ssl_context())
    client.connect(str(identity.hub), 8883, keepalive=30)
    client.loop_start()
    return client


async def talk(device: AgentDevice, identity: Identity) -> None:
    """Publish something every second until the identity is renewed."""
    client = await asyncio.to_thread(client_of, identity)
    print(json.dumps({"connected": identity.thumbprint}), flush=True)
    topic = f"devices/{identity.device_id}/messages/events/"
    while device.identity is identity:
        client.publish(topic, json.dumps({"thumbprint": identity.thumbprint}), qos=1)
        await asyncio.sleep(1)
    client.loop_stop()
    client.disconnect()


async def main(config: str, root: str) -> None:
    async with connect(config, root=root) as device:
        await talk(device, device.identity)
        async for identity in device.renewals():
            await talk(device, identity)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
