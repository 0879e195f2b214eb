"""What the provisioning service asks the CA: is a certificate good, is a CA a device's own, and note who registered."""

from collections.abc import Sequence
from datetime import datetime

from birthmark.ca.service import CertificateAuthority
from birthmark.pki.certificates import Certificate
from birthmark.store import Changes


class InventoryForDps:
    """The `CertificateInventory` of DPS."""

    def __init__(self, authority: CertificateAuthority) -> None:
        self._authority = authority

    async def check(self, leaf: Certificate, bag: Sequence[Certificate]) -> None:
        await self._authority.revocations.check(leaf, bag)

    async def is_devices_own(self, ca: Certificate) -> bool:
        return await self._authority.is_devices_own(ca)

    async def is_lost(self, name: str) -> bool:
        return await self._authority.revocations.is_lost(name)

    def registered(self, certificate: Certificate, now: datetime) -> Changes:
        return self._authority.registered(certificate, now)
