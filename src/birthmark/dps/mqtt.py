"""DPS over MQTT 3.1.1 (DPS documentation, "Communicate with DPS using the MQTT protocol").

The proof is checked at CONNECT, so that a device that cannot register gets an immediate CONNACK 5. It is checked again
if the device registers more than 1 s later, because the record may have changed. Register returns 200 `assigned`
directly, which the SDKs accept and which saves them a wait of seconds.
"""

import json
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from http import HTTPStatus

from birthmark.clock_and_entropy import Clock
from birthmark.dps import wire
from birthmark.dps.error_mapping import connack_reason, http_error, wire_message
from birthmark.dps.model import Claim
from birthmark.dps.rules.attestation import check_client_id, check_same
from birthmark.dps.service import Registrations
from birthmark.dps.service.attester import AttestedClaim
from birthmark.errors import BirthmarkError, ThrottledError
from birthmark.metric_catalog import Traffic
from birthmark.mqtt.errors import LocalProtocolError
from birthmark.mqtt.packets import Connect, Publish, SubAck, Subscribe, UnsubAck, Unsubscribe
from birthmark.net.mqtt_driver import MqttDriver
from birthmark.net.mqtt_service_interface import Admission, CloseReason, MqttRefusedError, require_3_1_1
from birthmark.refusals import Ledger

MAX_KEEP_ALIVE_S = 1177


MAX_OF_ONE = 4  # a device registers on one; earlier ones may still be closing


class DpsMqtt:
    """Admission of devices that connect to register."""

    def __init__(self, registrations: Registrations, ledger: Ledger, clock: Clock) -> None:
        self._registrations = registrations
        self._ledger = ledger
        self._clock = clock
        self._live: set[DpsConnection] = set()
        self._of_device: dict[tuple[str, str], list[DpsConnection]] = {}
        self.traffic = Traffic()

    def live_connections(self) -> tuple["DpsConnection", ...]:
        """Return every connection."""
        return tuple(self._live)

    def recheck_connecting_clients(self) -> None:
        """Do nothing: a connecting device is checked again when it registers."""

    def add_connection(self, connection: "DpsConnection") -> None:
        """Add an open connection; above the limit, the oldest of the same registration is closed."""
        self._live.add(connection)
        its = self._of_device.setdefault(connection.device, [])
        its.append(connection)
        if len(its) > MAX_OF_ONE:
            its[0].driver.close(CloseReason.TAKEN_OVER)

    def remove_connection(self, connection: "DpsConnection") -> None:
        """Remove a closed connection."""
        self._live.discard(connection)
        if connection in (its := self._of_device.get(connection.device, [])):
            its.remove(connection)
        if not its:
            self._of_device.pop(connection.device, None)

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
            verdict = await self._registrations.attester.attest(claim)
            check_client_id(packet.client_id, user.registration_id)
        except BirthmarkError as error:
            raise MqttRefusedError(connack_reason(error), error) from error
        return Admission(
            connection=DpsConnection(
                *(self, self._registrations, self._ledger, self._clock),
                driver=driver,
                verdict=verdict,
                api_version=user.api_version,
            ),
            proved_by=f"registration {user.id_scope}/{user.registration_id.lower()}" if packet.password else "",
            keep_alive_s=min(packet.keep_alive_s or MAX_KEEP_ALIVE_S, MAX_KEEP_ALIVE_S),
            traffic=self.traffic,
        )


class DpsConnection:
    """A device's connection; all its state ends with the connection."""

    def __init__(
        self,
        connections: DpsMqtt,
        registrations: Registrations,
        ledger: Ledger,
        clock: Clock,
        *,
        driver: MqttDriver,
        verdict: AttestedClaim,
        api_version: str,
    ) -> None:
        self._connections = connections
        self.driver = driver
        self._registrations = registrations
        self._ledger = ledger
        self._clock = clock
        self._claim = verdict.claim
        self._verdict = verdict
        self._api_version = api_version
        self._qos = 0

    @property
    def device(self) -> tuple[str, str]:
        """Scope and registration ID of the device, in the form for comparison."""
        return self._verdict.instance.id_scope, self._claim.registration_id.lower()

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
        waits_s = wire.RETRY_AFTER_S
        try:
            if isinstance(request, wire.RegisterRequest):
                body = wire.parse_registration(packet.payload)
                check_same(self._claim.registration_id, body.registration_id)
                claim = wire.add_request(self._claim, body)
                registration = await self._registrations.register(claim, self._verdict)
            else:
                registration = await self._registrations.operation(self._claim, request.operation_id)
            status, answer = 200, wire.status_json(registration, self._claim.leaf, self._api_version)
        except BirthmarkError as error:
            status, number = http_error(error)
            if isinstance(error, ThrottledError):
                waits_s = max(waits_s, error.retry_after_s)
            tracking_id = self._ledger.record(
                error,
                address=self.driver.address,
                presented=self._claim.leaf,
                registration_id=self._claim.registration_id,
            )
            answer = wire.error_json(number, wire_message(error), tracking_id, self._clock.now())
        self.driver.ack(packet.packet_id)
        retry = waits_s if status == HTTPStatus.TOO_MANY_REQUESTS else None
        topic = wire.response_topic(status, request.rid, retry)
        with suppress(LocalProtocolError):  # unacknowledged; the device polls again if needed
            self.driver.publish(topic, json.dumps(answer).encode(), self._qos)
