"""The CA's records of a device: its name, its certificates, and certificates of other CAs that it presented."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from birthmark.ca import store
from birthmark.ca.model import IssuedCertificate
from birthmark.ca.revocation import AlreadyRevokedError
from birthmark.ca.service import CertificateAuthority
from birthmark.clock_and_entropy import format_utc
from birthmark.devices.model import DeviceCounts, DevicePart, DeviceState
from birthmark.devices.ports import DeviceAccess, DeviceIdentity, DeviceRecords, DeviceScope, RevocationOrder
from birthmark.pki.certificates import Thumbprint
from birthmark.pki.names_and_registration_ids import fold
from birthmark.store.pagination import each_among

FOREIGN = "certificate of another CA"


@dataclass(frozen=True, slots=True)
class CertificateRecords(DeviceRecords):
    """Device records of the certificate authority."""

    authority: CertificateAuthority = field(repr=False)

    async def parts(self, device: DeviceIdentity) -> AsyncIterator[DevicePart]:
        revocations = self.authority.revocations
        for name in device.folded:
            if (since := await revocations.lost_since(name)) is not None:
                yield DevicePart("ca", "name", name, "shut out", f"since {format_utc(since)}")
            alive = {one.certificate.thumbprint for one in await revocations.alive(name)}
            for one in await self.authority.of_name(name):
                thumbprint, until = one.certificate.thumbprint, format_utc(one.certificate.not_after)
                state = "revoked" if one.is_revoked else "good" if thumbprint in alive else "ended"
                yield DevicePart("ca", "certificate", thumbprint.hex(), state, f"{one.profile}, until {until}")
        for thumbprint in await self._foreign(device.presented):
            state = "revoked" if await revocations.is_revoked(thumbprint) else "good"
            yield DevicePart("ca", FOREIGN, thumbprint.hex(), state)

    async def access(self, order: RevocationOrder) -> AsyncIterator[DeviceAccess]:
        for name in order.device.folded:
            async for one in self._issued(name, order):
                yield one
        async for one in self._presented(order.device.presented, order):
            yield one

    async def _issued(self, name: str, order: RevocationOrder) -> AsyncIterator[DeviceAccess]:
        revocations = self.authority.revocations
        alive = {one.certificate.thumbprint: one async for one in revocations.each_alive(name)}
        issued = {one.certificate.thumbprint: one for one in await self.authority.of_name(name)} | alive
        parents: set[Thumbprint] = set()
        for thumbprint, one in issued.items():
            order.certificates.add(thumbprint)
            if one.is_revoked:
                yield DeviceAccess("ca", "certificate", thumbprint.hex())
            elif thumbprint in alive:
                note = f"{one.profile}, until {one.certificate.not_after:%Y-%m-%d %H:%M} UTC"
                yield DeviceAccess("ca", "certificate", thumbprint.hex(), partial(self._revoke, one, order), note=note)
            if one.parent is not None:
                parents.add(one.parent)
        for parent in sorted(parents - issued.keys() - order.shared):
            await asyncio.sleep(0)  # yield: there may be one for each certificate
            if await self.authority.find(parent) is not None:
                order.certificates.add(parent)
                continue
            async for above in self._requesting_certificate_access(parent, name, order):
                yield above

    async def _requesting_certificate_access(
        self, parent: Thumbprint, name: str, order: RevocationOrder
    ) -> AsyncIterator[DeviceAccess]:
        """Yield the other CA's certificate, such as the manufacturer's, that requested this device's certificate.

        If several devices used that certificate to request theirs, it is only reported and not revoked.
        """
        others = [other for other in await self.authority.names_below(parent) if other != name]
        if others:
            note = f"it also requested certificates for {', '.join(others)}"
            yield DeviceAccess("ca", FOREIGN, parent.hex(), note=note, is_left=True)
            return
        order.certificates.add(parent)
        async for one in self._presented([parent], order):
            yield one

    async def _revoke(self, certificate: IssuedCertificate, order: RevocationOrder) -> None:
        with contextlib.suppress(AlreadyRevokedError):  # revoked with another one of its key
            revocations = self.authority.revocations
            await revocations.certificate(certificate.certificate.thumbprint, order.principal, order.reason)

    async def _presented(
        self, thumbprints: Iterable[Thumbprint], order: RevocationOrder
    ) -> AsyncIterator[DeviceAccess]:
        revocations = self.authority.revocations
        ours = {one.thumbprint for one in self.authority.hierarchy.certificates}
        for one in await self._foreign(set(thumbprints) - ours):
            is_good = bool(await revocations.presented([one]))
            revoke = partial(revocations.others, [one], order.device.name, order.principal, order.reason)
            note = "the certificate alone; its key by `birthmark pki revoke --key-of FILE`"
            yield DeviceAccess("ca", FOREIGN, one.hex(), revoke if is_good else None, note=note)

    async def _foreign(self, thumbprints: Iterable[Thumbprint]) -> Sequence[Thumbprint]:
        """Return the thumbprints whose certificates another CA issued, sorted."""
        return [one for one in sorted(thumbprints) if await self.authority.find(one) is None]

    def scopes(self) -> Iterable[DeviceScope]:
        states = frozenset({DeviceState.ENDING, DeviceState.REFUSED, DeviceState.REVOKED})
        return (DeviceScope(store.PLACE, store.PLACE, states, self._page, self._find),)

    async def _page(self, after: str, limit: int) -> Sequence[str]:
        rows = await self.authority.database.all(store.NAMES_OF_CERTIFICATES, after=after, limit=limit)
        return [row["name"] for row in rows]

    async def _find(self, names: Sequence[str]) -> Mapping[str, DeviceState | None]:
        rows = each_among(self.authority.database, store.NAMES_NAMED, map(fold, names))
        there = {row["name"] async for row in rows}
        return {name: None for name in names if fold(name) in there}

    async def counts(self, _connected: Mapping[str, int]) -> Sequence[DeviceCounts]:
        return [DeviceCounts(store.PLACE)]
