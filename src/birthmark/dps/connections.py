"""Connections of devices that register, over MQTT and AMQP: their number, their requests, and the refusals of these."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

from birthmark.clock_and_entropy import Clock
from birthmark.dps import wire
from birthmark.dps.error_mapping import http_error, wire_message
from birthmark.dps.rules.attestation import check_same
from birthmark.dps.service import Registrations
from birthmark.dps.service.attester import AttestedClaim
from birthmark.errors import BirthmarkError, ThrottledError
from birthmark.metric_catalog import Traffic
from birthmark.net.live_connection import LiveConnection
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.pki.certificates import Certificate
from birthmark.refusals import Ledger

MAX_OF_ONE = 4  # a device registers on one; earlier ones may still be closing


class RegistrationConnection(Protocol):
    """A live connection of an authenticated device."""

    @property
    def driver(self) -> LiveConnection: ...

    @property
    def device(self) -> tuple[str, str]:
        """Scope and registration ID, in the form for comparison."""
        ...


@dataclass(frozen=True, slots=True)
class RequestRefusal:
    """A recorded refusal of a request: HTTP status, Azure's error body, and when to retry a throttled request."""

    status: int
    body: Mapping[str, Any]
    retry_after_s: int | None


class DpsConnections:
    """All connections of this worker, and what they share."""

    def __init__(self, registrations: Registrations, ledger: Ledger, clock: Clock) -> None:
        self.registrations = registrations
        self.ledger = ledger
        self.clock = clock
        self.traffic = Traffic()
        self._live: set[RegistrationConnection] = set()
        self._of_device: dict[tuple[str, str], list[RegistrationConnection]] = {}

    def live_connections(self) -> tuple[RegistrationConnection, ...]:
        """Return every connection."""
        return tuple(self._live)

    def recheck_connecting_clients(self) -> None:
        """Do nothing: a connecting device is checked again when it registers."""

    def add_connection(self, connection: RegistrationConnection) -> None:
        """Add an open connection; above the limit, the oldest of the same registration is closed."""
        self._live.add(connection)
        its = self._of_device.setdefault(connection.device, [])
        its.append(connection)
        if len(its) > MAX_OF_ONE:
            its[0].driver.close(CloseReason.TAKEN_OVER)

    def remove_connection(self, connection: RegistrationConnection) -> None:
        """Remove a closed connection."""
        self._live.discard(connection)
        if connection in (its := self._of_device.get(connection.device, [])):
            its.remove(connection)
        if not its:
            self._of_device.pop(connection.device, None)

    def refuse(
        self, error: BirthmarkError, address: str, presented: Certificate | None, **facts: str
    ) -> RequestRefusal:
        """Record the refusal of a request, from an address with a certificate."""
        status, number = http_error(error)
        tracking_id = self.ledger.record(error, address=address, presented=presented, **facts)
        retry_after_s = None
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            waits_s = error.retry_after_s if isinstance(error, ThrottledError) else 0
            retry_after_s = max(wire.RETRY_AFTER_S, waits_s)
        body = wire.error_json(number, wire_message(error), tracking_id, self.clock.now())
        return RequestRefusal(status, body, retry_after_s)


class RegistrationRequests:
    """Requests of one authenticated device; each returns the JSON of the response or raises `BirthmarkError`."""

    def __init__(self, connections: DpsConnections, verdict: AttestedClaim, address: str) -> None:
        self._connections = connections
        self._registrations = connections.registrations
        self._verdict = verdict
        self._claim = verdict.claim
        self._address = address

    @property
    def device(self) -> tuple[str, str]:
        """Scope and registration ID, in the form for comparison."""
        return self._verdict.instance.id_scope, self._claim.registration_id.lower()

    async def register(self, payload: bytes, api_version: str) -> Mapping[str, Any]:
        """Register the device. An earlier proof is valid for 1 s."""
        body = wire.parse_registration(payload)
        check_same(self._claim.registration_id, body.registration_id)
        registration = await self._registrations.register(wire.add_request(self._claim, body), self._verdict)
        return wire.status_json(registration, self._claim.leaf, api_version)

    async def get_operation(self, operation_id: str, api_version: str) -> Mapping[str, Any]:
        """Return the status of an operation."""
        registration = await self._registrations.operation(self._claim, operation_id)
        return wire.status_json(registration, self._claim.leaf, api_version)

    async def get_registration(self, payload: bytes, api_version: str) -> Mapping[str, Any]:
        """Return the registration without changing it."""
        body = wire.parse_registration(payload)
        wire.check_no_csr(body)
        check_same(self._claim.registration_id, body.registration_id)
        attested = await self._registrations.attester.attest(self._claim)
        registration = await self._registrations.get(attested.instance, self._claim.registration_id)
        return wire.device_state_json(registration, self._claim.leaf, api_version)

    def refuse(self, error: BirthmarkError) -> RequestRefusal:
        """Record a refusal."""
        claim = self._claim
        return self._connections.refuse(error, self._address, claim.leaf, registration_id=claim.registration_id)
