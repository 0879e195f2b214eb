"""Passwords, stored as scrypt digests (RFC 7914) and compared in constant time.

The cost slows down guessing: tens of milliseconds and 16 MiB. A server that checks a password with each request uses
`PasswordCheck`. It runs scrypt off the event loop and caches verified passwords under a key of this process.
"""

import asyncio
import base64
import hashlib
import hmac
from collections import OrderedDict
from dataclasses import dataclass, field

from birthmark.clock_and_entropy import Entropy

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


def hash_generated(password: str) -> str:
    """Return `sha256$digest` for a generated password of at least 128 random bits, which cannot be guessed.

    It is checked immediately, so that guessers do not delay the device that uses it.
    """
    return f"{_MADE}${_text(hashlib.sha256(password.encode()).digest())}"


def is_generated(stored: str | None) -> bool:
    """Return whether a password was generated here, by its digest."""
    return stored is not None and stored.startswith(f"{_MADE}$")


def generated_matches(password: str, stored: str) -> bool:
    """Return whether `password` is the one that `hash_made` digested; fast."""
    return hmac.compare_digest(hash_generated(password), stored)


def password_matches(password: str, stored: str) -> bool:
    """Return whether `password` matches the `stored` digest. Slow on purpose."""
    _, log_n, r, p, salt, digest = stored.split("$")
    made = _scrypt(password, base64.b64decode(salt), int(log_n), int(r), int(p))
    return hmac.compare_digest(made, base64.b64decode(digest))


@dataclass(slots=True)
class PasswordCheck:
    """Checks passwords without blocking the event loop; verified passwords are cached."""

    entropy: Entropy = field(repr=False)
    _key: bytes = field(init=False, repr=False)
    _decoy: str = field(init=False, repr=False)
    _verified: OrderedDict[bytes, None] = field(default_factory=OrderedDict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._key = self.entropy.token(32)
        # Same check cost as a real password but matches none: scrypt output is indistinguishable from random.
        self._decoy = _stored(self.entropy.token(_SALT_BYTES), self.entropy.token(_DIGEST_BYTES))

    def can_check_quickly(self, password: str, stored: str | None) -> bool:
        """Return whether this password is cached or generated; cheap, and of no use to guessers."""
        if stored is None or len(password.encode()) > MAX_PASSWORD_BYTES:
            return False
        if is_generated(stored):
            return generated_matches(password, stored)
        mark = self._mark(password, stored)
        if mark not in self._verified:
            return False
        self._verified.move_to_end(mark)
        return True

    def _mark(self, password: str, stored: str | None) -> bytes:
        return hmac.digest(self._key, f"{stored}\0{password}".encode(), "sha256")

    async def matches(self, password: str, stored: str | None) -> bool:
        """Check against `stored`; None takes as long and never matches, so that timing reveals no names."""
        if len(password.encode()) > MAX_PASSWORD_BYTES:
            return False
        if self.can_check_quickly(password, stored):
            return True
        slow = self._decoy if stored is None or is_generated(stored) else stored
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
