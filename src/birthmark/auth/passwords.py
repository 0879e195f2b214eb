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
_MADE = "sha256"
_SALT_BYTES, _DIGEST_BYTES = 16, 32
_MAX_REMEMBERED = 1024
MAX_PASSWORD_BYTES = 1024


def hash_password(password: str, entropy: Entropy) -> str:
    """Return `scrypt$logN$r$p$salt$digest`."""
    salt = entropy.token(_SALT_BYTES)
    return _stored(salt, _scrypt(password, salt, _LOG_N, _R, _P))


def _stored(salt: bytes, digest: bytes) -> str:
    return "$".join(("scrypt", str(_LOG_N), str(_R), str(_P), _text(salt), _text(digest)))


def hash_made(password: str) -> str:
    """Return `sha256$digest`, for a password of 128 random bits or more that was made here: nobody guesses those.

    It is checked at once, so that no guesser keeps the device waiting that has it.
    """
    return f"{_MADE}${_text(hashlib.sha256(password.encode()).digest())}"


def is_made(stored: str | None) -> bool:
    """Say whether a password was made here, by its digest."""
    return stored is not None and stored.startswith(f"{_MADE}$")


def made_matches(password: str, stored: str) -> bool:
    """Say whether `password` is the one that `hash_made` digested; quick."""
    return hmac.compare_digest(hash_made(password), stored)


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
        # As dear to check as any, and no password's: what scrypt makes is not told from chance.
        self._decoy = _stored(self.entropy.token(_SALT_BYTES), self.entropy.token(_DIGEST_BYTES))

    def remembers(self, password: str, stored: str | None) -> bool:
        """Say whether this password was verified before, or was made here; costs nothing, and helps no guesser."""
        if stored is None or len(password.encode()) > MAX_PASSWORD_BYTES:
            return False
        if is_made(stored):
            return made_matches(password, stored)
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
        slow = self._decoy if stored is None or is_made(stored) else stored
        mark = self._mark(password, stored)
        matched = await asyncio.to_thread(password_matches, password, slow)
        if slow != stored:
            return False
        if not matched:
            return False
        self._verified[mark] = None
        if len(self._verified) > _MAX_REMEMBERED:
            self._verified.popitem(last=False)
        return True


def _scrypt(password: str, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=1 << log_n, r=r, p=p, dklen=_DIGEST_BYTES)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
