"""RSA keys that the service makes for devices: a key takes some hundredths of a second of a processor, in a thread."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import rsa

from birthmark.errors import ThrottledError
from birthmark.turns import Turns

AT_ONCE = 2
MAX_OF_ONE = 16
"""Keys that one principal waits for."""
_BITS, _EXPONENT = 2048, 65537


class TooManyOwnedError(ThrottledError):
    """Too many certificates for one claim certificate or access key."""

    code = "awsiot.too_many_owned"
    cause = "{principal} reached its limit of certificates: {limit} {what}."
    fix = "Ask again in a minute; those that no device uses go within an hour. Who asks: `birthmark why`"
    limit: int
    principal: str
    what: str


@dataclass(slots=True)
class RsaKeys:
    """Makes keys, so many at once, for each principal in turn."""

    _turns: Turns = field(default_factory=lambda: Turns(AT_ONCE))
    _waiting: Counter[str] = field(default_factory=Counter)

    async def make(self, principal: str) -> rsa.RSAPrivateKey:
        """Return a new key. Raise `TooManyOwnedError` for who waits for as many as one may."""
        if self._waiting[principal] >= MAX_OF_ONE:
            what = "whose keys are being made"
            raise TooManyOwnedError(limit=MAX_OF_ONE, principal=principal, what=what, retry_after_s=5)
        self._waiting[principal] += 1
        try:
            async with self._turns.of(principal):
                return await asyncio.to_thread(rsa.generate_private_key, _EXPONENT, _BITS)
        finally:
            self._waiting[principal] -= 1
            if not self._waiting[principal]:
                del self._waiting[principal]
