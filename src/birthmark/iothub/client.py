"""IoT Hub device client: connect, send telemetry, request a certificate that replaces the current one."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from birthmark import __version__
from birthmark.device_transports.errors import LinkTimeoutError
from birthmark.device_transports.ports import MqttClient
from birthmark.iothub import wire
from birthmark.iothub.model import name_of, parse_name
from birthmark.mqtt.packets import Connect
from birthmark.pki.certificates import Certificate
from birthmark.untrusted_json_and_text import printable

AGENT = f"birthmark/{__version__}"
MQTT_PORT = 8883
KEEP_ALIVE_S = 60
_ISSUED_S = 120.0
_LATER = frozenset({409, 429, 500, 502, 503, 504})


class NotIssuedError(Exception):
    """Signal to the caller that the hub issues this device no certificate; never shown to users."""


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
        """Send one message and wait for its acknowledgment by the hub (QoS 1)."""
        bag: dict[str, str | None] = {}
        if message_id is not None:
            bag["$.mid"] = message_id
        if content_type is not None:
            bag |= {"$.ct": content_type, "$.ce": "utf-8"}
        bag |= properties or {}
        await self.mqtt.publish(wire.telemetry_topic(self.device_id) + wire.render_property_bag(bag), payload)

    async def issue(self, csr: bytes, rid: str) -> tuple[Certificate, ...]:
        """Request a certificate that replaces the one of this connection; `csr` is DER.

        Return the chain, leaf first and root last. The connection stays as it is. Raise `NotIssuedError` or connection
        errors; a hub that requests a later retry is treated as one that does not respond.
        """
        await self.mqtt.subscribe(wire.CREDENTIALS)
        await self.mqtt.publish(wire.issue_topic(rid), wire.credential_request_json(self.device_id, csr))
        try:
            async with asyncio.timeout(_ISSUED_S):
                while True:
                    message = await self.mqtt.next_message()
                    if (answer := wire.parse_credential_topic(message.topic)) is None or answer[1] != rid:
                        continue
                    if answer[0] == HTTPStatus.OK:
                        return wire.parse_issued(message.payload)
                    if answer[0] in _LATER:
                        raise LinkTimeoutError(host=self.host, port=MQTT_PORT, seconds=f"{_ISSUED_S:g}")
                    if answer[0] != HTTPStatus.ACCEPTED:
                        told = wire.parse_credential_error(message.payload)
                        words = printable(told.message[:300])
                        raise NotIssuedError(f"{words} (error {told.error_code or answer[0]}, {told.tracking_id})")
        except TimeoutError as error:
            raise LinkTimeoutError(host=self.host, port=MQTT_PORT, seconds=f"{_ISSUED_S:g}") from error

    async def wait_until_lost(self) -> Exception:
        """Wait for the end of the connection and return its reason."""
        return await self.mqtt.wait_for_loss()

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
    """Connect a new client as `device_id`, with its certificate or a signed `password`.

    Through a `gateway`, host name and topics stay the hub's; the parent device responds.

    Raise connection errors; `MqttRefusedError` when the hub rejects the connection.
    """
    device_id = name_of(*parse_name(device_id))
    username = wire.render_username(host, device_id, AGENT)
    secret = None if password is None else password.encode()
    connect = Connect(device_id, clean_start=False, keep_alive_s=keep_alive_s, username=username, password=secret)
    await mqtt.connect(gateway or host, port, connect)
    return HubClient(mqtt, host, device_id)
