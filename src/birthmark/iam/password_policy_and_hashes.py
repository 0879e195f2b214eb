"""User passwords: acceptance rules and Argon2id hashes (RFC 9106, second recommended option).

Hashes are computed one at a time, as each takes 64 MiB. Passwords of EST devices are in
`birthmark.auth.password_digests`.
"""

import asyncio
import base64
import unicodedata
from dataclasses import dataclass, field

from argon2 import PasswordHasher, Type
from argon2.exceptions import VerificationError

from birthmark.clock_and_entropy import Entropy
from birthmark.errors import InvalidRequestError
from birthmark.supervised_tasks import run_in_thread

MIN_CHARS, MAX_BYTES = 12, 1024
_MIN_DIFFERENT = 5
_MIN_REST = 8
TIME, MEMORY_KIB, LANES = 3, 64 * 1024, 4
_SALT_BYTES, _DIGEST_BYTES = 16, 32
_COMMON = ("password", "passwort", "qwerty", "qwertz", "letmein", "welcome", "administrator", "admin", "birthmark")
_DIGITS = "01234567890123456789"


class PasswordUnfitError(InvalidRequestError):
    """The password is not acceptable."""

    code = "people.password_unfit"
    cause = "The password is not acceptable: {detail}."
    fix = "Choose another password: at least 12 characters that are hard to guess, such as four random words."
    for_a_person = "the user has to choose a password"
    detail: str


def normalize_password(password: str) -> str:
    """Return a password in normalized form, independent of the keyboard's composition (RFC 8265 section 4.2.2).

    Normalization takes quadratic time: bound the length before.
    """
    spaced = "".join(" " if unicodedata.category(char) == "Zs" else char for char in password)
    return unicodedata.normalize("NFC", spaced)


def check_password(password: str, user: str) -> None:
    """Raise `PasswordUnfitError` for an easily guessed password; there are no composition rules."""
    text = normalize_password(password[: MAX_BYTES + 1])
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in text):
        raise PasswordUnfitError(detail="it contains a character that cannot be typed")
    if len(text) < MIN_CHARS:
        raise PasswordUnfitError(detail=f"it has fewer than {MIN_CHARS} characters")
    if len(password) > MAX_BYTES or len(text.encode()) > MAX_BYTES:
        raise PasswordUnfitError(detail=f"it has more than {MAX_BYTES} bytes")
    if len(set(text)) < _MIN_DIFFERENT or text in _DIGITS or text in _DIGITS[::-1]:
        raise PasswordUnfitError(detail="it is one of the most common passwords")
    rest = text.casefold()
    for word in (user.casefold(), *_COMMON):
        rest = rest.replace(word, "")
    if len(rest) < min(_MIN_REST, len(text)):
        raise PasswordUnfitError(detail="too few characters remain without your name and common words")


@dataclass(slots=True)
class Passwords:
    """Password hasher: one hash at a time, outside the event loop."""

    entropy: Entropy = field(repr=False)
    hasher: PasswordHasher = field(
        default_factory=lambda: PasswordHasher(TIME, MEMORY_KIB, LANES, _DIGEST_BYTES, _SALT_BYTES, type=Type.ID),
        repr=False,
    )
    _decoy: str = field(init=False, repr=False)
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1), init=False, repr=False)

    def __post_init__(self) -> None:
        # Same check cost as a real password but matches none: Argon2 output is indistinguishable from random.
        parts = (self.entropy.token(_SALT_BYTES), self.entropy.token(_DIGEST_BYTES))
        salt, digest = (base64.b64encode(part).decode().rstrip("=") for part in parts)
        costs = f"m={self.hasher.memory_cost},t={self.hasher.time_cost},p={self.hasher.parallelism}"
        self._decoy = f"$argon2id$v=19${costs}${salt}${digest}"

    async def digest(self, password: str) -> str:
        """Return the hash of a password."""
        text, salt = normalize_password(password).encode(), self.entropy.token(_SALT_BYTES)
        async with self._turn:
            return await run_in_thread(lambda: self.hasher.hash(text, salt=salt))

    async def matches(self, password: str, stored: str | None) -> bool:
        """Return whether a password matches its hash.

        None as the hash takes as long and never matches, so that timing does not reveal which users exist.
        """
        text = normalize_password(password[: MAX_BYTES + 1]).encode("utf-8", "surrogatepass")
        if len(password) > MAX_BYTES or len(text) > MAX_BYTES:
            text = b""
        against = self._decoy if stored is None else stored

        def verified() -> bool:
            try:
                return self.hasher.verify(against, text)
            except VerificationError:
                return False

        async with self._turn:
            return await run_in_thread(verified) and stored is not None

    def is_old(self, stored: str) -> bool:
        """Return whether a hash uses outdated cost parameters."""
        return self.hasher.check_needs_rehash(stored)
