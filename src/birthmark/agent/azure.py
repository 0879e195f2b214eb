"""A device's certificate as Azure issues it: with the registration, and by the hub from then on.

The hub is asked on the connection there is, which stays. Where the hub knows the device no more, or there is no
certificate by which it would, the bootstrap certificate introduces the device to the provisioning service again. What
was asked for is asked for again by the same key, and the same certificate comes back: an answer may be lost anywhere.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from birthmark.agent.config.model import Issued
from birthmark.agent.issuing import Answered
from birthmark.agent.slots import HeldIdentity
from birthmark.clock import Entropy
from birthmark.dps.client import Assigned
from birthmark.dps.wire import AnswerInvalidError
from birthmark.errors import ForbiddenError, UnauthenticatedError
from birthmark.iothub.client import HubClient, NotIssuedError
from birthmark.links.errors import LinkLostError, ServerUntrustedError
from birthmark.pki.certificates import Certificate
from birthmark.pki.csr import parse_csr

log = logging.getLogger(__name__)


@dataclass(slots=True)
class ByAzure:
    """Has certificates issued for one agent."""

    entropy: Entropy
    connect: Callable[[HeldIdentity], Awaitable[HubClient]]
    """To the hub that is known."""
    register: Callable[[bytes], Awaitable[Assigned]]
    """By the bootstrap certificate, with a request."""
    live: HubClient | None = field(default=None, init=False)
    """The connection there is, or was."""

    async def issue(self, issued: Issued, request: bytes, current: HeldIdentity | None) -> Answered:
        """Return the certificate for a request, without the root; `current` is one that the hub may take."""
        chain: tuple[Certificate, ...] = ()
        if current is not None:
            try:
                chain = await self._by_hub(current, request)
            except ServerUntrustedError:  # who refuses nobody
                raise
            except (UnauthenticatedError, ForbiddenError, NotIssuedError) as error:
                log.info("certificate.not_by_hub", extra={"reason": str(error)})
        if not chain:
            chain = (await self.register(request)).chain
        _check(chain, request, issued)
        return Answered(tuple(one for one in chain if not one.is_self_signed))

    async def _by_hub(self, current: HeldIdentity, request: bytes) -> tuple[Certificate, ...]:
        rid = self.entropy.token(8).hex()
        if self.live is not None:
            try:
                return await self.live.issue(request, rid)
            except LinkLostError:
                self.live = None
        hub = await self.connect(current)
        try:
            return await hub.issue(request, rid)
        finally:
            await hub.close()


def _check(chain: tuple[Certificate, ...], request: bytes, issued: Issued) -> None:
    """Raise `AnswerInvalidError` for a certificate that is not the device's."""
    if not chain:
        raise AnswerInvalidError(detail="it registered the device, and issued no certificate")
    if chain[0].spki_der != parse_csr(request).spki_der:
        raise AnswerInvalidError(detail="its certificate is for another key")
    if chain[0].subject_cn != issued.common_name:
        raise AnswerInvalidError(detail=f"its certificate is for {chain[0].subject_text}, not for {issued.common_name}")
