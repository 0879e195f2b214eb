"""Clock and Entropy: the only ways to ask for time and chance. Tests hand in fakes (tests/fakes.py)."""

import secrets
import time
import uuid
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time and monotonic time."""

    def now(self) -> datetime:
        """Return the wall time, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds since some fixed moment; never goes back."""
        ...


class Entropy(Protocol):
    """Unpredictable values."""

    def token(self, n: int) -> bytes:
        """Return `n` unpredictable bytes."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class SystemEntropy:
    """The operating system's random source."""

    def token(self, n: int) -> bytes:
        return secrets.token_bytes(n)


def new_uuid(entropy: Entropy) -> str:
    """Return a random UUID (RFC 9562 version 4) in its usual text form."""
    return str(uuid.UUID(bytes=entropy.token(16), version=4))
