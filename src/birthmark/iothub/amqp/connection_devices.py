"""The devices of one AMQP connection: their tokens, and when each begins and ends.

A token names its device, or is of a policy that may connect every device. A device without a token is authenticated
by the certificate of the connection.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Final
from urllib.parse import unquote

from birthmark.amqp.errors import AmqpError
from birthmark.amqp.receiver_link import ReceiverLink
from birthmark.amqp.sender_link import SenderLink
from birthmark.auth.permission_statements import Right
from birthmark.auth.sas import SKEW, SasScopeError, SasToken, check_resource, parse_sas
from birthmark.errors import BirthmarkError, PolicyError, UnauthenticatedError
from birthmark.iothub.amqp.claims import MAX_AUDIENCE_CHARS
from birthmark.iothub.amqp.device import AmqpDevice
from birthmark.iothub.amqp.link_handler import LinkHandler
from birthmark.iothub.amqp.telemetry_link import UnwrittenTelemetry
from birthmark.iothub.connections import HubConnections
from birthmark.iothub.connections.device_connections import Authenticate
from birthmark.iothub.model import DeviceId, Hub, Identity, name_of, parse_name
from birthmark.iothub.rules.authentication import DEVICE_CONNECT, DeviceDisabledError
from birthmark.iothub.rules.configurations import EDGE_HUB
from birthmark.iothub.rules.device_chains import DeviceChainError, check_chain, parse_chain
from birthmark.iothub.wire import HubUser
from birthmark.iothub.wire.amqp_addresses import DeviceNode
from birthmark.net.amqp_driver import AmqpDriver
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.net.quota_key import owner_of

CHAIN: Final = "com.microsoft:auth-chain"
"""Property of a link that names a device and the gateways above it."""
MAX_DEVICES = 1100
"""Devices of one connection, and their tokens: SDKs multiplex up to 1,000 devices."""
_CONTROL_FRAMES = 32  # that SDKs send for a device when they connect it: its session and links
_LAST_S = 253_402_300_799
_DEVICE_PATH = re.compile(r"devices/([^/]+)(?:/modules/([^/]+))?(?:/.*)?", re.IGNORECASE)
_PLAIN_USER = re.compile(r"([^/@]+(?:/modules/[^/@]+)?)@sas\.(?!root\.)[^@]+", re.IGNORECASE)


class TooManyDevicesOfConnectionError(PolicyError):
    """The connection has too many devices."""

    code = "iothub.too_many_device_tokens"
    cause = "A connection has more than {limit} devices, or tokens of devices."
    fix = "Divide the devices among more connections. To list them: `birthmark hub device ls`"
    limit: int


class PlainUserError(UnauthenticatedError):
    """The SASL PLAIN user is not the device of the token."""

    code = "iothub.plain_user_mismatch"
    message = "The user name {user} is not the device of the token"
    cause = "A client connected over AMQP as {user}, but its token is for {resource}."
    fix = (
        "Set the user name to DEVICE@sas.HUB, and sign the token for HOST/devices/DEVICE. To show the device: "
        "`birthmark hub device show {device_id}`"
    )
    device_id: str
    resource: str
    user: str


@dataclass(frozen=True, slots=True)
class DeviceToken:
    """A token that was accepted; `name` is that of its device or module, empty for every device of the hub."""

    host: str
    name: str
    text: str
    expires_at: datetime

    def is_for(self, host: str, name: str, at: datetime) -> bool:
        """Return whether the token may authenticate a device."""
        return self.host == host and self.name in {"", name} and self.expires_at + SKEW > at


def device_of_path(path: str) -> tuple[str, str | None] | None:
    """Return the device and module in a token's path; None for a path of the whole hub.

    Segments may be encoded twice, as IoT Edge does.
    """
    found = _DEVICE_PATH.fullmatch(path.strip("/"))
    return None if found is None else (unquote(found[1]), None if found[2] is None else unquote(found[2]))


def resource_of(token: SasToken) -> tuple[str, str]:
    """Return the host and the path of a token's resource, in the letter case of the token."""
    text = unquote(token.signed_resource)
    host, _, path = (text.partition("://")[2] or text).partition("/")
    return host.lower(), path


class ConnectionDevices:
    """The devices of one connection."""

    def __init__(self, connections: HubConnections, driver: AmqpDriver, on_end: Callable[[AmqpDevice], None]) -> None:
        """`on_end` is called for each device that has ended, while its links are known."""
        self._connections = connections
        self._driver = driver
        self._on_end = on_end
        self._tokens: dict[str, DeviceToken] = {}
        self._devices: dict[str, AmqpDevice] = {}
        self._unwritten = UnwrittenTelemetry()
        self._hostname = ""

    def connected_to(self, hostname: str) -> None:
        """Set the host name that the client connected to, from its OPEN frame."""
        self._hostname = hostname

    def __len__(self) -> int:
        return len(self._devices)

    def hubs(self) -> Iterable[str]:
        """Return the hub of each device."""
        return (device.hub.name for device in self._devices.values())

    # ---- tokens

    async def present(self, audience: str, text: str, token: SasToken) -> Hub:
        """Accept a token, and begin or renew the session of its device. Raise `BirthmarkError`."""
        host, path = resource_of(token)
        if (named := device_of_path(path)) is None:
            hub = self._connections.iothub.hubs.by_host(host)
            hubs, address = self._connections.iothub.hubs, self._driver.address
            hubs.authorize(hub, text, DEVICE_CONNECT, path, right=Right.OPERATE, address=address)
            check_resource(token, [f"{hub.host}/devices"])
            name = ""
            for device in self._devices.values():
                if device.hub.name == hub.name and device.is_of_policy:
                    device.renew(token)
        else:
            device_id, module_id = parse_name("/".join(part for part in named if part is not None))
            hub = await self._authenticate(host, device_id, module_id, text)
            name = name_of(device_id, module_id)
        self._add(audience, DeviceToken(hub.host, name, text, _expiry_of(token)))
        return hub

    async def present_plain(self, user: str, text: str) -> Hub:
        """Accept the device of a SASL PLAIN user and its token. Raise `BirthmarkError`."""
        token = parse_sas(text)
        host, path = resource_of(token)
        device_text = user.partition("@")[0].replace("/modules/", "/")
        device_id, module_id = parse_name(device_text)
        named = device_of_path(path)
        if named is not None and named != (device_id, module_id):
            raise PlainUserError(user=user[:200], resource=token.resource[:200], device_id=device_id)
        hub = await self._authenticate(host, device_id, module_id, text)
        self._add("", DeviceToken(hub.host, name_of(device_id, module_id), text, _expiry_of(token)))
        return hub

    def _add(self, audience: str, token: DeviceToken) -> None:
        key = token.name or f"policy {audience[:MAX_AUDIENCE_CHARS]}"  # which is no name of a device
        if len(self._tokens) >= MAX_DEVICES and key not in self._tokens:
            at = self._connections.clock.now()
            self._tokens = {name: one for name, one in self._tokens.items() if one.expires_at + SKEW > at}
            if len(self._tokens) >= MAX_DEVICES:
                raise TooManyDevicesOfConnectionError(limit=MAX_DEVICES)
        self._tokens[key] = token

    # ---- devices

    async def attach(self, link: ReceiverLink | SenderLink, node: DeviceNode) -> tuple[AmqpDevice, LinkHandler | None]:
        """Attach a link to its device, whose session begins if this is its first. Raise `BirthmarkError`."""
        device_id, module_id = parse_name(name_of(node.device_id, node.module_id))
        name = name_of(device_id, module_id)
        if (device := self._devices.get(name)) is None:
            chain = str(link.properties.get(CHAIN, ""))
            device = await self._begin(device_id, module_id, name, chain)
        try:
            return device, await device.attach_link(link, node)
        except (BirthmarkError, AmqpError):
            device.leave_unused()
            raise

    async def _begin(self, device_id: DeviceId, module_id: str | None, name: str, chain: str) -> AmqpDevice:
        hubs, now = self._connections.iothub.hubs, self._connections.clock.now()
        known = hubs.find(self._hostname) or hubs.find(self._driver.peer.sni)
        hosts = [known.host] if known is not None else [one.host for one in hubs.all()]
        own = self._tokens.get(name)
        known_tokens = [*([own] if own is not None else []), *self._tokens.values()]
        tokens = (one for one in known_tokens if any(one.is_for(host, name, now) for host in hosts))
        token = next(tokens, None)
        if token is None and chain:
            return await self._admit_child(device_id, module_id, chain)
        host = token.host if token is not None else self._any_hub().host
        authenticate = self._authentication(host, device_id, module_id, None if token is None else token.text)
        return await self._admit(host, device_id, module_id, authenticate)

    async def _authenticate(self, host: str, device_id: DeviceId, module_id: str | None, text: str) -> Hub:
        """Begin the session of a device, or renew it."""
        device = self._devices.get(name_of(device_id, module_id))
        authenticate = self._authentication(host, device_id, module_id, text)
        if device is None:
            return (await self._admit(host, device_id, module_id, authenticate)).hub
        hub, _, token = await authenticate()
        if hub.name != device.hub.name:
            expected = f"{device.hub.host}/devices/{device.device_id}"
            raise SasScopeError(resource=f"{hub.host}/devices/{device.device_id}", expected=expected)
        device.renew(token)
        return hub

    def _authentication(self, host: str, device_id: DeviceId, module_id: str | None, text: str | None) -> Authenticate:
        """Return the check of a device's own token, or of the connection's certificate without one."""
        password = None if text is None else text.encode()
        registry, user = self._connections.iothub.registry, HubUser(host, device_id, module_id, "")
        return partial(registry.authenticate, user, self._driver.peer, password, address=self._driver.address)

    async def _admit_child(self, device_id: DeviceId, module_id: str | None, chain: str) -> AmqpDevice:
        """Begin the session of a device below a gateway of this connection."""
        name = name_of(device_id, module_id)
        gateway_id = chain.rpartition(";")[2]
        gateway = self._devices.get(name_of(gateway_id, EDGE_HUB))
        if gateway is None:
            hub_name = self._any_hub().name
            detail = f"{gateway_id[:100]} is not connected here"
            raise DeviceChainError(chain=chain[:200], detail=detail, device_id=name, hub=hub_name)
        hub, registry = gateway.hub, self._connections.iothub.registry
        names = parse_chain(chain, name, hub.name)

        async def authenticate() -> tuple[Hub, Identity, SasToken | None]:
            check_chain([await registry.device(hub, one) for one in names], chain)
            identity = await registry.identity(hub, name)
            if not identity.is_enabled:
                raise DeviceDisabledError(device_id=device_id, hub=hub.name)
            return hub, identity, None

        device = await self._admit(hub.host, device_id, module_id, authenticate, names)
        gateway.add_child(device)
        return device

    def _any_hub(self) -> Hub:
        """Return the hub that the client named, or that of a device. Raise `UnknownHubError`."""
        hubs = self._connections.iothub.hubs
        named = hubs.find(self._hostname) or hubs.find(self._driver.peer.sni)
        device = next(iter(self._devices.values()), None)
        return named or (hubs.by_host(self._hostname) if device is None else device.hub)

    async def _admit(
        self,
        host: str,
        device_id: DeviceId,
        module_id: str | None,
        authenticate: Authenticate,
        chain: Sequence[str] = (),
    ) -> AmqpDevice:
        def make(hub: Hub, identity: Identity, is_of_policy: bool) -> AmqpDevice:  # noqa: FBT001 - a callback
            return AmqpDevice(
                *(self._connections, self._driver, self._unwritten, self._ended),
                hub=hub,
                identity=identity,
                is_of_policy=is_of_policy,
            )

        if len(self._devices) >= MAX_DEVICES:
            raise TooManyDevicesOfConnectionError(limit=MAX_DEVICES)
        try:
            device, attached, token = await self._connections.admit(
                HubUser(host, device_id, module_id, ""),
                authenticate,
                make=make,
                chain=chain,
            )
        except BirthmarkError as error:
            error.add_facts(device_id=name_of(device_id, module_id), hub=host)
            raise
        assert isinstance(device, AmqpDevice)  # noqa: S101 - as `make` returned it
        device.renew(token)
        self._driver.engine.allowance.refill(_CONTROL_FRAMES)
        attached.resume()
        if device.is_over or self._driver.is_over:  # taken over, or the client has gone
            device.leave(CloseReason.LOST)
        else:
            self._devices[device.device_id] = device
            peer, proven = self._driver.peer, f"device {device.hub.name}/{device.device_id}"
            self._driver.mark_authenticated(owner_of(peer.leaf, self._driver.address) if token is None else proven)
        return device

    def check(self) -> None:
        """End the devices whose token has expired."""
        for device in tuple(self._devices.values()):
            try:
                device.check()
            except BirthmarkError as error:
                device.driver.refuse(error)

    def close(self, reason: CloseReason) -> None:
        """End all devices: the connection is closed."""
        for device in tuple(self._devices.values()):
            device.leave(reason)
        self._tokens.clear()

    def _ended(self, device: AmqpDevice) -> None:
        if self._devices.get(device.device_id) is device:
            del self._devices[device.device_id]
        self._on_end(device)


def is_plain_device(user: str) -> bool:
    """Return whether a SASL PLAIN user is a device or module, and not a policy."""
    return _PLAIN_USER.fullmatch(user) is not None


def is_of_device(token: SasToken) -> bool:
    """Return whether a token is a device's, or of the policy that may only connect devices."""
    _, path = resource_of(token)
    return device_of_path(path) is not None or token.policy == "device"


def _expiry_of(token: SasToken) -> datetime:
    return datetime.fromtimestamp(min(token.expiry_s, _LAST_S), UTC)
