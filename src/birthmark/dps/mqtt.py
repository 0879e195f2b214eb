"""DPS over MQTT 3.1.1 (DPS documentation, "Communicate with DPS using the MQTT protocol").

The proof is checked at CONNECT, so that a device that cannot register gets an immediate CONNACK 5. It is checked again
if the device registers more than 1 s later, because the record may have changed. Register returns 200 `assigned`
directly, which the SDKs accept and which saves them a wait of seconds.
"""

import json
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from http import HTTPStatus

from birthmark.dps import wire
from birthmark.dps.connections import DpsConnections, RegistrationRequests
from birthmark.dps.error_mapping import connack_reason
from birthmark.dps.model import Claim
from birthmark.dps.rules.attestation import check_client_id
from birthmark.errors import BirthmarkError
from birthmark.mqtt.errors import LocalProtocolError
from birthmark.mqtt.packets import Connect, Publish, SubAck, Subscribe, UnsubAck, Unsubscribe
from birthmark.net.mqtt_driver import MqttDriver
from birthmark.net.mqtt_service_interface import Admission, CloseReason, MqttRefusedError, require_3_1_1

MAX_KEEP_ALIVE_S = 1177


class DpsMqtt:
    """Admission of devices that connect to register."""

    def __init__(self, connections: DpsConnections) -> None:
        self._connections = connections

    async def accept(self, driver: MqttDriver, packet: Connect) -> Admission:
        """Admit the client of a CONNECT, or raise `MqttRefusedError`."""
        require_3_1_1(packet)
        try:
            user = wire.parse_username(packet.username or "")
            claim = Claim(
                user.id_scope,
                user.registration_id,
                driver.peer.leaf,
                driver.peer.chain,
                packet.password.decode("utf-8", "replace") if packet.password else None,
                address=driver.address,
            )
            verdict = await self._connections.registrations.attester.attest(claim)
            check_client_id(packet.client_id, user.registration_id)
        except BirthmarkError as error:
            raise MqttRefusedError(connack_reason(error), error) from error
        requests = RegistrationRequests(self._connections, verdict, driver.address)
        return Admission(
            connection=DpsConnection(self._connections, driver, requests, user.api_version),
            proved_by=f"registration {user.id_scope}/{user.registration_id.lower()}" if packet.password else "",
            keep_alive_s=min(packet.keep_alive_s or MAX_KEEP_ALIVE_S, MAX_KEEP_ALIVE_S),
            traffic=self._connections.traffic,
        )


class DpsConnection:
    """A device's connection; all its state ends with the connection."""

    def __init__(
        self, connections: DpsConnections, driver: MqttDriver, requests: RegistrationRequests, api_version: str
    ) -> None:
        self._connections = connections
        self.driver = driver
        self._requests = requests
        self._api_version = api_version
        self._qos = 0

    @property
    def device(self) -> tuple[str, str]:
        return self._requests.device

    def opened(self) -> None:
        self._connections.add_connection(self)

    def subscribed(self, packet: Subscribe) -> Awaitable[None] | None:
        for name, options in packet.filters:
            if name != wire.RESPONSES:
                raise wire.TopicError(topic=name[:200])
            self._qos = min(options & 3, 1)
        self.driver.send(SubAck(packet.packet_id, tuple(self._qos for _ in packet.filters)))
        return None

    def unsubscribed(self, packet: Unsubscribe) -> Awaitable[None] | None:
        self.driver.send(UnsubAck(packet.packet_id))
        return None

    def acknowledged(self, packet_ids: Sequence[int]) -> Awaitable[None] | None:
        return None

    def published(self, packets: Sequence[Publish]) -> Awaitable[None] | None:
        return self._answer_each(packets)

    def closed(self, reason: CloseReason, session_expiry_s: int | None) -> None:
        self._connections.remove_connection(self)

    async def _answer_each(self, packets: Sequence[Publish]) -> None:
        for packet in packets:
            await self.driver.wait_for_turn()
            if self.driver.is_over:
                return
            request = wire.parse_topic(packet.topic)
            if not (self.driver.is_lost and isinstance(request, wire.StatusRequest)):
                await self._answer(request, packet)

    async def _answer(self, request: wire.RegisterRequest | wire.StatusRequest, packet: Publish) -> None:
        status, retry_after_s = int(HTTPStatus.OK), None
        try:
            if isinstance(request, wire.RegisterRequest):
                answer = await self._requests.register(packet.payload, self._api_version)
            else:
                answer = await self._requests.get_operation(request.operation_id, self._api_version)
        except BirthmarkError as error:
            refusal = self._requests.refuse(error)
            status, answer, retry_after_s = refusal.status, refusal.body, refusal.retry_after_s
        self.driver.ack(packet.packet_id)
        topic = wire.response_topic(status, request.rid, retry_after_s)
        with suppress(LocalProtocolError):  # unacknowledged; the device polls again if needed
            self.driver.publish(topic, json.dumps(answer).encode(), self._qos)
