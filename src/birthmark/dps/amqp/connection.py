"""One AMQP connection of a device that registers: its proof, its links, and its requests.

A certificate is verified with the first request, so that its refusal is an outcome. The SDK for Node.js waits 45 s
after a refused link.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any

from birthmark.amqp.errors import AmqpCondition, AmqpError, AmqpErrorScope
from birthmark.amqp.events import (
    AmqpEvent,
    ConnectionOpened,
    DeliveryReceived,
    LinkDetached,
    LinkRequested,
    SaslResponded,
    SaslStarted,
)
from birthmark.amqp.link import LinkState
from birthmark.amqp.receiver_link import ReceiverLink
from birthmark.amqp.sasl import SaslMechanism
from birthmark.amqp.sender_link import SenderLink
from birthmark.dps import wire
from birthmark.dps.amqp.messages import (
    MAX_MESSAGE_BYTES,
    DpsAmqpRequest,
    DpsAmqpRequestError,
    DpsOperation,
    error_of,
    parse_request,
    render_response,
)
from birthmark.dps.amqp.tpm_exchange import TpmExchange
from birthmark.dps.connections import DpsConnections, RegistrationRequests, RequestRefusal
from birthmark.dps.model import Claim
from birthmark.errors import BirthmarkError, ForbiddenError
from birthmark.net.amqp_driver import AmqpDriver
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.net.quota_key import owner_of
from birthmark.net.tls import TlsPeer

MAX_LINKS = 4
"""Links of a connection: SDKs use two."""
MAX_REFUSED_PROOFS = 4
"""Refused links and requests of a connection without a proof; then it is closed."""
CREDIT = 4
"""Requests of a link that wait for their response."""
API_VERSION = "com.microsoft:api-version"
_MAX_SHOWN = 200
_MAX_VERSION = 40
_Link = ReceiverLink | SenderLink


class RegistrationAddressError(ForbiddenError):
    """The link is not at the address of the device."""

    code = "dps.amqp_address_mismatch"
    message = "The device has no link at {address}"
    cause = "The client of {registration_id} attached a link at {address}. A connection serves one device."
    fix = (
        "Attach both links at SCOPE/registrations/ID of the authenticated device, as the Azure SDKs do. To register "
        "over MQTT or HTTPS for comparison: `birthmark device register`"
    )
    address: str
    registration_id: str = "?"


class DpsAmqp:
    """Accepts the AMQP connections of devices that register."""

    def __init__(self, connections: DpsConnections) -> None:
        self._connections = connections

    def connect(self, driver: AmqpDriver, _hostname: str = "") -> "DpsAmqpConnection":
        """Return the provisioning service's side of a connection."""
        return DpsAmqpConnection(self._connections, driver)


class DpsAmqpTransport:
    """The connection, as the rest of the server sees it."""

    __slots__ = ("_driver",)

    def __init__(self, driver: AmqpDriver) -> None:
        self._driver = driver

    @property
    def peer(self) -> TlsPeer:
        return self._driver.peer

    @property
    def address(self) -> str:
        return self._driver.address

    @property
    def is_over(self) -> bool:
        return self._driver.is_over

    def close(self, reason: CloseReason) -> None:
        """End the connection."""
        told = "another connection of the device has replaced this one"
        if reason is not CloseReason.TAKEN_OVER:
            told = "the provisioning service ended the connection"
        self._driver.close(AmqpError(AmqpCondition.CONNECTION_FORCED, told))


class DpsAmqpConnection:
    """Handles the events of one connection, of one device."""

    def __init__(self, connections: DpsConnections, driver: AmqpDriver) -> None:
        self.driver = DpsAmqpTransport(driver)
        self._connections = connections
        self._amqp = driver
        self._exchange: TpmExchange | None = None
        self._claimed: tuple[str, str] | None = None
        self._requests: RegistrationRequests | None = None  # with a proof
        self._links: list[_Link] = []  # newest last
        self._refused_proofs = 0
        self._api_version = ""

    @property
    def device(self) -> tuple[str, str]:
        return ("", "") if self._requests is None else self._requests.device

    # ---- for the driver

    def handle(self, event: AmqpEvent) -> Awaitable[None] | None:
        """Handle an event of the peer."""
        match event:
            case SaslStarted(mechanism=SaslMechanism.PLAIN):
                return self._sasl_plain(event)
            case SaslStarted(mechanism=SaslMechanism.TPM):
                self._sasl_tpm(event)
            case SaslStarted():
                self._amqp.engine.accept_sasl()
            case SaslResponded(response=response):
                return self._sasl_response(response)
            case ConnectionOpened():
                self._amqp.engine.accept_open()
            case LinkRequested(link=link):
                self._attach(link)
            case DeliveryReceived():
                return self._answer(event)
            case LinkDetached(link=link) if link in self._links:
                self._links.remove(link)
            case _:
                pass
        return None

    def writable(self) -> None:
        """Do nothing: links send their queued responses with the peer's credit."""

    def check_deadlines(self, _at: float) -> float | None:
        """Return None: each request is authenticated again, and the engine closes silent connections."""
        return None

    def closed(self) -> None:
        """Release everything: the transport is closed."""
        self._connections.remove_connection(self)
        self._links.clear()
        self._exchange = None

    # ---- the proof

    async def _sasl_plain(self, event: SaslStarted) -> None:
        path = wire.parse_registration_path(event.authentication_id)
        try:
            if path is None:
                raise DpsAmqpRequestError(detail="the user name of SASL PLAIN must be SCOPE/registrations/ID")
            await self._prove(self._claim(*path, event.password))
        except BirthmarkError as error:
            self._refuse_sasl(error, "" if path is None else path[1])
        else:
            self._amqp.engine.accept_sasl()

    def _sasl_tpm(self, event: SaslStarted) -> None:
        self._exchange = TpmExchange(
            self._connections.registrations.attester, self._amqp.address, self._note_refused_tpm
        )
        try:
            self._amqp.engine.challenge_sasl(self._exchange.start(event.response))
        except BirthmarkError as error:
            self._refuse_sasl(error, self._exchange.registration_id)

    async def _sasl_response(self, response: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None  # noqa: S101 - only its challenges have responses
        try:
            found = await exchange.respond(response)
            if isinstance(found, bytes):
                self._amqp.engine.challenge_sasl(found)
                return
            if found is None:
                self._amqp.refuse_sasl(None)
                return
            await self._prove(found)
        except BirthmarkError as error:
            self._refuse_sasl(error, exchange.registration_id)
        else:
            self._exchange = None
            self._amqp.engine.accept_sasl()

    def _note_refused_tpm(self, error: BirthmarkError) -> None:
        if self._exchange is not None:
            error.add_facts(registration_id=self._exchange.registration_id[:_MAX_SHOWN])
        self._amqp.note(error)

    def _refuse_sasl(self, error: BirthmarkError, registration_id: str) -> None:
        error.add_facts(registration_id=registration_id[:_MAX_SHOWN])
        if not self._amqp.is_over:
            self._amqp.refuse_sasl(error)

    def _claim(self, id_scope: str, registration_id: str, token: str | None) -> Claim:
        peer = self._amqp.peer
        return Claim(id_scope, registration_id, peer.leaf, peer.chain, token, address=self._amqp.address)

    async def _prove(self, claim: Claim) -> RegistrationRequests:
        """Verify a proof; from then on, this is a connection of the device. Raise `BirthmarkError`."""
        driver = self._amqp
        verdict = await self._connections.registrations.attester.attest(claim)
        requests = RegistrationRequests(self._connections, verdict, driver.address)
        if not driver.is_over:
            self._requests, self._claimed = requests, (claim.id_scope, claim.registration_id)
            scope, registration_id = requests.device
            proven = f"registration {scope}/{registration_id}"
            driver.mark_authenticated(proven if claim.token else owner_of(driver.peer.leaf, driver.address))
            self._connections.add_connection(self)
        return requests

    # ---- links

    def _attach(self, link: _Link) -> None:
        try:
            self._accept(link)
        except BirthmarkError as error:
            link.refuse(error_of(self._refuse(error), AmqpErrorScope.LINK))
        except AmqpError as error:
            link.refuse(error)

    def _accept(self, link: _Link) -> None:
        """Accept a link of the device. Raise `RegistrationAddressError` or `AmqpError`."""
        path = wire.parse_registration_path(link.own_address)
        if self._claimed is None and path is not None:
            self._claimed = path
        own = self._claimed
        if own is None or path is None or _folded(path) != _folded(own):
            own_id = "?" if own is None else own[1]
            raise RegistrationAddressError(address=link.own_address[:_MAX_SHOWN], registration_id=own_id)
        if len(self._links) >= MAX_LINKS:
            told = f"a connection has at most {MAX_LINKS} links"
            raise AmqpError(AmqpCondition.RESOURCE_LIMIT_EXCEEDED, told, scope=AmqpErrorScope.LINK)
        if isinstance(version := link.properties.get(API_VERSION), str):
            self._api_version = version[:_MAX_VERSION]
        if isinstance(link, SenderLink):
            link.accept(settled=True)
        else:
            link.accept(credit=CREDIT, max_message_bytes=MAX_MESSAGE_BYTES)
        if link.state is LinkState.ATTACHED:
            self._links.append(link)

    # ---- requests

    async def _answer(self, event: DeliveryReceived) -> None:
        link = event.link
        try:
            request = parse_request(event.payload)
            answering = self._find_answering()
            if answering is None:
                raise DpsAmqpRequestError(detail="the client has no receiving link for the response")
            answer = await _respond(await self._requests_of_device(), request, self._api_version)
        except BirthmarkError as error:
            link.reject(event.delivery_id, error_of(self._refuse(error)))
            return
        link.settle(event.delivery_id)
        try:
            answering.enqueue(render_response(request.correlation, answer))
        except AmqpError as error:  # too many responses wait for credit
            answering.detach(error)
            if answering in self._links:
                self._links.remove(answering)

    async def _requests_of_device(self) -> RegistrationRequests:
        """Return the requests of the device, whose certificate is verified now without another proof."""
        if self._requests is None:
            assert self._claimed is not None  # noqa: S101 - no link is accepted without
            return await self._prove(self._claim(*self._claimed, None))
        return self._requests

    def _refuse(self, error: BirthmarkError) -> RequestRefusal:
        """Record the refusal of a link or request; a client without a proof has few attempts."""
        if self._requests is not None:
            return self._requests.refuse(error)
        self._refused_proofs += 1
        if self._refused_proofs >= MAX_REFUSED_PROOFS:
            told = AmqpError(AmqpCondition.UNAUTHORIZED_ACCESS, "no proof was accepted")
            asyncio.get_running_loop().call_soon(self._amqp.close, told)
        error.add_facts(registration_id="" if self._claimed is None else self._claimed[1][:_MAX_SHOWN])
        return self._connections.refuse(error, self._amqp.address, self._amqp.peer.leaf)

    def _find_answering(self) -> SenderLink | None:
        """Return the newest link on which the device receives."""
        return next((one for one in reversed(self._links) if isinstance(one, SenderLink)), None)


def _folded(path: tuple[str, str]) -> tuple[str, str]:
    scope, registration_id = path
    return scope.lower(), registration_id.lower()


async def _respond(requests: RegistrationRequests, request: DpsAmqpRequest, api_version: str) -> Mapping[str, Any]:
    match request.operation:
        case DpsOperation.REGISTER:
            return await requests.register(request.payload, api_version)
        case DpsOperation.GET_OPERATION:
            return await requests.get_operation(request.operation_id, api_version)
        case DpsOperation.GET_REGISTRATION:
            return await requests.get_registration(request.payload, api_version)
