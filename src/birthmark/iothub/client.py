"""The device's side of IoT Hub: connect, send telemetry."""

from collections.abc import Mapping
from dataclasses import dataclass

from birthmark import __version__
from birthmark.iothub import wire
from birthmark.iothub.model import name_of, parse_name
from birthmark.links.ports import MqttClient
from birthmark.mqtt.packets import Connect

AGENT = f"birthmark/{__version__}"
MQTT_PORT = 8883
KEEP_ALIVE_S = 60


@dataclass(frozen=True, slots=True)
class HubClient:
    """A device's connection to its hub."""

    mqtt: MqttClient
    host: str
    device_id: str

    async def send(
        self,
        payload: bytes,
        properties: Mapping[str, str] | None = None,
        *,
        content_type: str | None = None,
        message_id: str | None = None,
    ) -> None:
        """Send one message; return when the hub has it safely (QoS 1)."""
        bag: dict[str, str | None] = {}
        if message_id is not None:
            bag["$.mid"] = message_id
        if content_type is not None:
            bag |= {"$.ct": content_type, "$.ce": "utf-8"}
        bag |= properties or {}
        await self.mqtt.publish(wire.telemetry_topic(self.device_id) + wire.render_property_bag(bag), payload)

    async def lost(self) -> Exception:
        """Return when the connection is over, with the reason."""
        return await self.mqtt.lost()

    async def close(self) -> None:
        await self.mqtt.close()


async def connect_hub(
    mqtt: MqttClient,
    host: str,
    device_id: str,
    *,
    port: int = MQTT_PORT,
    keep_alive_s: int = KEEP_ALIVE_S,
    password: str | None = None,
    gateway: str | None = None,
) -> HubClient:
    """Connect a fresh client as `device_id`; without a certificate by a signed `password`.

    Through a `gateway` the words stay the hub's own; who answers is the parent device.

    Raise the errors of links; `MqttRefusedError` when the hub says no.
    """
    device_id = name_of(*parse_name(device_id))
    username = wire.render_username(host, device_id, AGENT)
    secret = None if password is None else password.encode()
    connect = Connect(device_id, clean_start=False, keep_alive_s=keep_alive_s, username=username, password=secret)
    await mqtt.connect(gateway or host, port, connect)
    return HubClient(mqtt, host, device_id)
