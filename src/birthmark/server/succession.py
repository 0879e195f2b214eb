"""Which certificates of devices follow which, by the inventory of this installation's CA."""

from collections.abc import Sequence

from birthmark.ca.service import CertificateAuthority
from birthmark.pki.certificates import Certificate

_MOST = 8


class Succession:
    """Tells what a certificate renewed: what was shown to get it, and to get that."""

    def __init__(self, authority: CertificateAuthority) -> None:
        self._authority = authority

    async def __call__(self, leaf: Certificate) -> Sequence[str]:
        """Return the thumbprints of what it renewed, the latest first; none for one that is not of this CA."""
        found: list[str] = []
        issued = await self._authority.find(leaf.thumbprint)
        while issued is not None and issued.parent is not None and len(found) < _MOST:
            found.append(issued.parent.hex())
            issued = await self._authority.find(issued.parent)
        return found
