"""Passwords, kept as scrypt digests (RFC 7914) and compared in constant time.

The cost is meant for guessers: tens of milliseconds and 16 MiB. A server that checks one with each request uses
`PasswordCheck`, which runs scrypt off the loop and remembers, under a key of this process only, what it has verified.
"""

import asyncio
import base64
import hashlib
import hmac
from collections import OrderedDict
from dataclasses import dataclass, field

from birthmark.clock import Entropy

_LOG_N, _R, _P = 14, 8, 1
_SALT_BYTES, _DIGEST_BYTES = 16, 32
_MAX_REMEMBERED = 1024
MAX_PASSWORD_BYTES = 1024


def hash_password(password: str, entropy: Entropy) -> str:
    """Return `scrypt$logN$r$p$salt$digest`."""
    salt = entropy.token(_SALT_BYTES)
    return "$".join(
        ("scrypt", str(_LOG_N), str(_R), str(_P), _text(salt), _text(_scrypt(password, salt, _LOG_N, _R, _P)))
    )


def password_matches(password: str, stored: str) -> bool:
    """Say whether `password` is the one `stored` was made from. Slow on purpose."""
    _, log_n, r, p, salt, digest = stored.split("$")
    made = _scrypt(password, base64.b64decode(salt), int(log_n), int(r), int(p))
    return hmac.compare_digest(made, base64.b64decode(digest))


@dataclass(slots=True)
class PasswordCheck:
    """Checks passwords without stopping the loop, quickly for those seen before."""

    entropy: Entropy = field(repr=False)
    _key: bytes = field(init=False, repr=False)
    _decoy: str = field(init=False, repr=False)
    _verified: OrderedDict[bytes, None] = field(default_factory=OrderedDict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._key = self.entropy.token(32)
        self._decoy = hash_password("", self.entropy)

    def remembers(self, password: str, stored: str | None) -> bool:
        """Say whether this password was verified before; costs nothing, and tells a guesser nothing new."""
        if stored is None or len(password.encode()) > MAX_PASSWORD_BYTES:
            return False
        mark = self._mark(password, stored)
        if mark not in self._verified:
            return False
        self._verified.move_to_end(mark)
        return True

    def _mark(self, password: str, stored: str | None) -> bytes:
        return hmac.digest(self._key, f"{stored}\0{password}".encode(), "sha256")

    async def matches(self, password: str, stored: str | None) -> bool:
        """Check against `stored`; None takes as long and never matches, so that a name cannot be guessed by time."""
        if len(password.encode()) > MAX_PASSWORD_BYTES:
            return False
        if self.remembers(password, stored):
            return True
        mark = self._mark(password, stored)
        matched = await asyncio.to_thread(password_matches, password, stored or self._decoy)
        if not matched or stored is None:
            return False
        self._verified[mark] = None
        if len(self._verified) > _MAX_REMEMBERED:
            self._verified.popitem(last=False)
        return True


def _scrypt(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=1 << log_n, r=r, p=p, dklen=_DIGEST_BYTES)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
