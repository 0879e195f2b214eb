"""AWS IoT device client: connect as a thing, publish.

MQTT 3.1.1 on port 8883 with a client certificate. The client ID is the thing's name, as required by policies with
`${iot:Connection.Thing.ThingName}`.
"""

from dataclasses import dataclass

from birthmark.device_transports.ports import MqttClient
from birthmark.mqtt.packets import Connect

MQTT_PORT = 8883
KEEP_ALIVE_S = 60


@dataclass(frozen=True, slots=True)
class ThingClient:
    """A thing's connection to its account."""

    mqtt: MqttClient
    host: str
    thing: str

    async def send(self, payload: bytes) -> None:
        """Publish one message to `devices/THING/data`; return once the broker has stored it (QoS 1)."""
        await self.mqtt.publish(f"devices/{self.thing}/data", payload)

    async def wait_until_lost(self) -> Exception:
        """Wait until the connection is lost; return the reason."""
        return await self.mqtt.wait_for_loss()

    async def close(self) -> None:
        await self.mqtt.close()


async def connect_thing(mqtt: MqttClient, host: str, thing: str) -> ThingClient:
    """Connect a new client as `thing`. Raise the errors of links.

    AWS refuses a client by closing the connection. It also closes the first connection of a certificate that is
    registered just in time.
    """
    await mqtt.connect(host, MQTT_PORT, Connect(thing, clean_start=True, keep_alive_s=KEEP_ALIVE_S))
    return ThingClient(mqtt, host, thing)
