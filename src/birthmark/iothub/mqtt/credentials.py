"""A device's requests for certificates: accepted, issued beside everything else, answered where it still listens."""

from collections.abc import Awaitable
from contextlib import suppress

from birthmark.clock import Clock, SystemEntropy, new_uuid
from birthmark.errors import BirthmarkError
from birthmark.iothub import wire
from birthmark.iothub.errors import http_error
from birthmark.iothub.model import Device, Hub
from birthmark.iothub.rules.credentials import CredentialBusyError
from birthmark.iothub.service.credentials import Accepted, Credentials
from birthmark.mqtt.errors import LocalProtocolError
from birthmark.net.pump import MqttPump
from birthmark.pki.csr import CsrRefusedError

_ENTROPY = SystemEntropy()
_ACCEPTED, _ISSUED = 202, 200


class CredentialRequests:
    """Those of one connection."""

    __slots__ = ("_clock", "_credentials", "_device", "_hub", "_pump", "_session")

    def __init__(self, credentials: Credentials, pump: MqttPump, clock: Clock, *, hub: Hub, device: Device) -> None:
        self._credentials = credentials
        self._clock = clock
        self._pump = pump
        self._hub = hub
        self._device = device
        self._session = credentials.session()

    async def accept(self, payload: bytes, rid: str) -> Awaitable[None] | None:
        """Say that a request is under way, and return what goes on with it; or say why there will be nothing."""
        correlation = new_uuid(_ENTROPY)
        try:
            asked = wire.parse_credential_request(payload)
            leaf = self._pump.peer.leaf
            accepted = await self._credentials.accept(
                self._hub, self._device, leaf, asked, request_id=rid, session=self._session
            )
        except BirthmarkError as error:
            self._refuse(error, rid, correlation)
            return None
        self._say(_ACCEPTED, rid, wire.accepted_json(correlation, accepted.expires_at))
        return self._finish(accepted, rid, correlation)

    async def _finish(self, accepted: Accepted, rid: str, correlation: str) -> None:
        try:
            chain = await self._credentials.finish(accepted)
        except BirthmarkError as error:
            self._refuse(error, rid, correlation)
        else:
            self._say(_ISSUED, rid, wire.issued_json(correlation, chain))

    def _refuse(self, error: BirthmarkError, rid: str, correlation: str) -> None:
        status, name, number = http_error(error)
        leaf = self._pump.peer.leaf
        error.add_facts(device_id=self._device.device_id, hub=self._hub.name, request_id=rid, tracking_id=correlation)
        if leaf is not None:
            error.add_facts(renews=leaf.thumbprint.hex())
        self._pump.note(error)
        info = {"credentialError": name, "credentialMessage": str(error)}
        if isinstance(error, CsrRefusedError):
            info["credentialError"] = "FailedToDecodeCsr"
        if isinstance(error, CredentialBusyError):
            info = {"requestId": error.request_id, "operationExpires": wire.operation_time(error.expires_at)}
        body = wire.credential_error_json(number, str(error), correlation, self._clock.now(), info)
        self._say(status, rid, body)

    def _say(self, status: int, rid: str, body: bytes) -> None:
        """Answer whoever asked, subscribed or not, as a twin does."""
        with suppress(LocalProtocolError):
            self._pump.publish(wire.credential_response_topic(status, rid), body)
