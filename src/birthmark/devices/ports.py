"""Interface to the device records of a package, between a cloud and `DeviceDirectory`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from birthmark.auth.principals import Principal
from birthmark.broker.namespace_sessions import Namespace
from birthmark.devices.model import DeviceCounts, DevicePart, DeviceState, RevokedPart
from birthmark.net.live_connection import LiveConnection
from birthmark.pki.certificates import Thumbprint
from birthmark.pki.crl_encoder import RevocationReason
from birthmark.pki.names_and_registration_ids import fold

Key = tuple[str, str, str]
"""Place, kind and ID of a part."""


@dataclass(frozen=True, slots=True)
class DeviceAccess:
    """One means of access of a device. Without `revoke`, it was revoked before or remains."""

    place: str
    what: str
    id: str
    revoke: Callable[[], Awaitable[object]] | None = field(default=None, repr=False)
    note: str = ""
    command: str = ""
    is_record: bool = True
    """Whether this proves that the device is known here."""
    is_left: bool = False
    """Whether other devices share it: an operator decides."""

    @property
    def key(self) -> Key:
        return self.place, self.what, self.id


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """A device with all its recorded names and certificates."""

    name: str
    """Name as the operator typed it."""
    spellings: AbstractSet[str]
    """Its names in other letter case, at services that are case-sensitive."""
    names: AbstractSet[str]
    """`spellings`, registration IDs and device IDs."""
    presented: AbstractSet[Thumbprint]
    """Certificates in its records, from any CA."""

    @property
    def folded(self) -> Sequence[str]:
        """Sorted names of the device at services that ignore case."""
        return sorted({fold(one) for one in self.names})


@dataclass(frozen=True, slots=True)
class RevocationOrder:
    """A revocation: device, principal and reason."""

    device: DeviceIdentity
    principal: Principal
    reason: RevocationReason
    certificates: set[Thumbprint]
    """All certificates found so far, from any issuer; subsequent records add to it."""
    shared: set[Thumbprint] = field(default_factory=set)
    """Certificates that requested those of several devices; never revoked with one device."""

    @property
    def actor(self) -> str:
        return self.principal.actor


@dataclass(frozen=True, slots=True)
class DeviceScope:
    """A scope with devices, and access to their names.

    `page` returns names after a given one, in order, at most `limit`. `find` returns the state of each known name, None
    for an unknown state.
    """

    scope: str
    """Scope in the notation of role assignments."""
    word_scope: str
    """Name of the scope in the word index."""
    states: AbstractSet[DeviceState]
    """The states that its devices can have."""
    page: Callable[[str, int], Awaitable[Sequence[str]]] = field(repr=False)
    find: Callable[[Sequence[str]], Awaitable[Mapping[str, DeviceState | None]]] = field(repr=False)
    disabled_page: Callable[[str, int], Awaitable[Sequence[str]]] | None = field(default=None, repr=False)
    tags: Callable[[Sequence[str]], Awaitable[Mapping[str, Mapping[str, Any]]]] | None = field(default=None, repr=False)
    """Tags of twins and attributes of things for some devices."""
    space: Namespace | None = field(default=None, repr=False)
    """MQTT namespace with its persistent connections."""
    is_case_sensitive: bool = False


class DeviceRecords:
    """One package's records of devices. Packages override the methods that they need."""

    async def spellings(self, _name: str) -> Iterable[str]:
        """Return the case variants of a name in a case-sensitive scope."""
        return ()

    async def names(self, _names: AbstractSet[str]) -> AbstractSet[str]:
        """Return further names of the device with these names."""
        return frozenset()

    async def thumbprints(self, _name: str) -> Iterable[bytes]:
        """Return the SHA-256 thumbprints in records of `name`."""
        return ()

    async def parts(self, _device: DeviceIdentity) -> AsyncIterator[DevicePart]:
        """Yield the parts of a device for display."""
        return
        yield

    async def access(self, _order: RevocationOrder) -> AsyncIterator[DeviceAccess]:
        """Yield a device's access in the order of its revocation."""
        return
        yield

    async def shared_access(self) -> Sequence[RevokedPart]:
        """Return shared access, which works for every device that knows it; an operator decides."""
        return ()

    def connections(
        self, _names: AbstractSet[str], _is_presented: Callable[[LiveConnection], bool]
    ) -> Iterator[tuple[str, LiveConnection]]:
        """Yield a device's connections to this worker, by name or by certificate, each with its location."""
        return iter(())

    def scopes(self) -> Iterable[DeviceScope]:
        """Return the scopes that have devices now."""
        return ()

    async def counts(self, _connected: Mapping[str, int]) -> Sequence[DeviceCounts]:
        """Return the number of devices in each scope; `connected` counts the clients of each MQTT namespace."""
        return ()
