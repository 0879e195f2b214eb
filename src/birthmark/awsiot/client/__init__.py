"""The device's side of AWS IoT: connect as a thing, publish.

MQTT 3.1.1 on port 8883 with a client certificate. The client id is the thing's name, as policies ask that name it by
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
        """Send one message to `devices/THING/data`; return when the broker has it safely (QoS 1)."""
        await self.mqtt.publish(f"devices/{self.thing}/data", payload)

    async def lost(self) -> Exception:
        """Return when the connection is over, with the reason."""
        return await self.mqtt.lost()

    async def close(self) -> None:
        await self.mqtt.close()


async def connect_thing(mqtt: MqttClient, host: str, thing: str) -> ThingClient:
    """Connect a fresh client as `thing`. Raise the errors of links.

    Whom AWS refuses it answers by closing the connection; so it does at the first one of a certificate that is
    registered just in time.
    """
    await mqtt.connect(host, MQTT_PORT, Connect(thing, clean_start=True, keep_alive_s=KEEP_ALIVE_S))
    return ThingClient(mqtt, host, thing)
