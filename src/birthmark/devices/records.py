"""What a package tells of its devices: the contract between a cloud and `Devices`."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from birthmark.auth.principals import Principal
from birthmark.broker.namespace import Namespace
from birthmark.devices.model import DeviceCounts, DevicePart, DeviceState, RevokedPart
from birthmark.net.mqtt_driver import MqttPump
from birthmark.pki.certificates import Thumbprint
from birthmark.pki.crl import RevocationReason
from birthmark.pki.names import fold

Key = tuple[str, str, str]
"""Place, kind and id of one part."""


@dataclass(frozen=True, slots=True)
class DeviceAccess:
    """One thing that lets a device in. Without `revoke` it was revoked before, or is left."""

    place: str
    what: str
    id: str
    revoke: Callable[[], Awaitable[object]] | None = field(default=None, repr=False)
    note: str = ""
    command: str = ""
    is_record: bool = True
    """Whether it proves that the device is known here."""
    is_left: bool = False
    """Other devices use it too: an operator decides."""

    @property
    def key(self) -> Key:
        return self.place, self.what, self.id


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """A device by every name and certificate on record."""

    name: str
    """As the operator typed it."""
    spellings: AbstractSet[str]
    """The same in other letter case, at services that tell case apart."""
    names: AbstractSet[str]
    """These, and its registration ids and device ids."""
    presented: AbstractSet[Thumbprint]
    """The certificates that it is on record with, from any CA."""

    @property
    def folded(self) -> Sequence[str]:
        """Its names at services that ignore case, sorted."""
        return sorted({fold(one) for one in self.names})


@dataclass(frozen=True, slots=True)
class RevocationOrder:
    """The device to revoke, by whom and why."""

    device: DeviceIdentity
    principal: Principal
    reason: RevocationReason
    certificates: set[Thumbprint]
    """Every certificate found so far, whoever issued it; records that follow each other add to it."""
    shared: set[Thumbprint] = field(default_factory=set)
    """Certificates that request others' certificates: never revoked with one device."""

    @property
    def actor(self) -> str:
        return self.principal.actor


@dataclass(frozen=True, slots=True)
class DeviceScope:
    """A scope that has devices, and how its names are read.

    `page` returns names behind one, in order, at most `limit`. `find` returns the state of each of some names that it
    has, None where it knows none.
    """

    scope: str
    """As role assignments name it."""
    word_scope: str
    """As rows of words name it."""
    states: AbstractSet[DeviceState]
    """The states that its devices can have."""
    page: Callable[[str, int], Awaitable[Sequence[str]]] = field(repr=False)
    find: Callable[[Sequence[str]], Awaitable[Mapping[str, DeviceState | None]]] = field(repr=False)
    disabled_page: Callable[[str, int], Awaitable[Sequence[str]]] | None = field(default=None, repr=False)
    tags: Callable[[Sequence[str]], Awaitable[Mapping[str, Mapping[str, Any]]]] | None = field(default=None, repr=False)
    """What operators noted of some devices: tags of twins, attributes of things."""
    space: Namespace | None = field(default=None, repr=False)
    """Its MQTT sessions, where devices stay connected."""
    is_case_sensitive: bool = False


class DeviceRecords:
    """What one package knows of devices. A package overrides what it has."""

    async def spellings(self, _name: str) -> Iterable[str]:
        """Return how a name is spelled here, where letter case counts."""
        return ()

    async def names(self, _names: AbstractSet[str]) -> AbstractSet[str]:
        """Return further names of the device that has these."""
        return frozenset()

    async def thumbprints(self, _name: str) -> Iterable[bytes]:
        """Return the SHA-256 thumbprints that `name` is on record with."""
        return ()

    async def parts(self, _device: DeviceIdentity) -> AsyncIterator[DevicePart]:
        """Yield what to show of a device."""
        return
        yield

    async def access(self, _order: RevocationOrder) -> AsyncIterator[DeviceAccess]:
        """Yield what lets a device in, in the order of its revocation."""
        return
        yield

    async def shared_access(self) -> Sequence[RevokedPart]:
        """Return what lets in every device that knows it; an operator decides."""
        return ()

    def connections(
        self, _names: AbstractSet[str], _is_presented: Callable[[MqttPump], bool]
    ) -> Iterator[tuple[str, MqttPump]]:
        """Yield a device's connections to this worker, by name or by certificate, each with its place."""
        return iter(())

    def scopes(self) -> Iterable[DeviceScope]:
        """Return the scopes that have devices now."""
        return ()

    async def counts(self, _connected: Mapping[str, int]) -> Sequence[DeviceCounts]:
        """Return how many devices each scope has; `connected` counts the clients of each MQTT space."""
        return ()
