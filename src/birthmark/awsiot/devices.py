"""What AWS IoT Core knows of a device: its thing, the certificates that are attached, and their connections."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial

from birthmark.awsiot.model import CertificateStatus
from birthmark.awsiot.mqtt import AwsConnections
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.store import registry
from birthmark.devices.model import DeviceCounts, DevicePart
from birthmark.devices.records import DeviceAccess, DeviceIdentity, DeviceRecords, DeviceScope, RevocationOrder
from birthmark.devices.states import State
from birthmark.errors import BirthmarkError
from birthmark.net.pump import MqttPump
from birthmark.pki.names import fold
from birthmark.store import Database
from birthmark.store.figures import SUMS
from birthmark.store.paging import each_among

_MAX_PRINCIPALS, _MAX_THINGS = 100, 10
_STATES = frozenset({State.CONNECTED, State.AWAY, State.REFUSED, State.REVOKED})


@dataclass(frozen=True, slots=True)
class ThingRecords(DeviceRecords):
    """The things of the account."""

    database: Database = field(repr=False)
    aws: AwsIot = field(repr=False)
    mqtt: AwsConnections = field(repr=False)

    async def spellings(self, name: str) -> Iterable[str]:
        return await self.aws.things.spellings(name)

    async def thumbprints(self, name: str) -> Iterable[bytes]:
        with contextlib.suppress(BirthmarkError):  # no such thing, or no name that a thing has
            page = await self.aws.attachments.principals(name, "", _MAX_PRINCIPALS)
            return [bytes.fromhex(certificate_id) for certificate_id, _ in page.items]
        return ()

    async def parts(self, device: DeviceIdentity) -> AsyncIterator[DevicePart]:
        for name in sorted(device.spellings):
            async for part in self._thing(name):
                yield part

    async def _thing(self, name: str) -> AsyncIterator[DevicePart]:
        with contextlib.suppress(BirthmarkError):  # no name that a thing has
            if await self.aws.things.find(name) is None:
                return
            page = await self.aws.attachments.principals(name, "", _MAX_PRINCIPALS)
            yield DevicePart("aws", "thing", name, "on record", f"{len(page.items)} certificates")
            for certificate_id, _ in page.items:
                known = await self.aws.certificates.find(certificate_id)
                if known is not None:
                    yield DevicePart("aws", "certificate", known.id, known.status.value.lower(), "")

    async def access(self, order: RevocationOrder) -> AsyncIterator[DeviceAccess]:
        for thumbprint in sorted(order.certificates):
            known = await self.aws.certificates.find(thumbprint.hex())
            if known is None:
                continue
            things = (await self.aws.attachments.things(known.id, "", _MAX_THINGS)).items
            others = [name for name, _ in things if fold(name) != fold(order.device.name)]
            note = f"of the thing{'s' * (len(others) > 1)} {', '.join(others)}, too" if others else ""
            revoke = partial(self.aws.certificates.set_status, known.id, CertificateStatus.REVOKED, actor=order.actor)
            is_revoked = known.status is CertificateStatus.REVOKED
            yield DeviceAccess("aws", "certificate", known.id, None if is_revoked else revoke, note=note)

    def connections(
        self, _names: AbstractSet[str], is_presented: Callable[[MqttPump], bool]
    ) -> Iterator[tuple[str, MqttPump]]:
        return (("aws", one.pump) for one in self.mqtt.everyone() if is_presented(one.pump))

    def scopes(self) -> Iterable[DeviceScope]:
        place, space = registry.PLACE, self.mqtt.space
        return (DeviceScope(place, place, _STATES, self._page, self._find, space=space, is_case_sensitive=True),)

    async def _page(self, after: str, limit: int) -> Sequence[str]:
        return [row["name"] for row in await self.database.all(registry.NAMES_OF_THINGS, after=after, limit=limit)]

    async def _find(self, names: Sequence[str]) -> Mapping[str, State | None]:
        return {row["name"]: None async for row in each_among(self.database, registry.THINGS_NAMED, names)}

    async def counts(self, connected: Mapping[str, int]) -> Sequence[DeviceCounts]:
        things = sum(int(row["value"]) for row in await self.database.all(SUMS, name=registry.FIGURE, from_since=0))
        return [DeviceCounts(registry.PLACE, things, connected.get(self.mqtt.space.name, 0))]
