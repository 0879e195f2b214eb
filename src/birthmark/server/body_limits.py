"""How many bytes of body each path takes; docs/reference/limits.md lists the same.

A room whose own bound is smaller answers in its own words up to here; beyond it the transport stops reading.
"""

from collections.abc import Callable

from birthmark.console.web.enroll.bounds import DROP, MAX_DROP_BYTES

_KIB = 1024

# The first that the path begins with, or contains when it does not begin with a slash.
BODY_LIMITS: tuple[tuple[bytes, int], ...] = (
    (b"/.well-known/est", 80 * _KIB),
    (b"registrations/", 112 * _KIB),
    (b"/ocsp", 8 * _KIB),
    (b"/enrollment", 512 * _KIB),
    (b"messages/events", 256 * _KIB),
    (b"messages/device", 80 * _KIB),
    (b"/devices", 64 * _KIB),
    (b"/twins/", 160 * _KIB),
    (b"/topics/", 160 * _KIB),
    (b"/operator/", 1024 * _KIB),
)
OTHERWISE = 128 * _KIB


def body_limit(target: bytes) -> int:
    """Return the bound for a request's target as it was sent."""
    path = target.partition(b"?")[0]
    for part, limit in BODY_LIMITS:
        if path.startswith(part) if part.startswith(b"/") else part in path:
            return limit
    return OTHERWISE


def operator_body_limit(most: int) -> Callable[[bytes], int]:
    """Return the bound at the operator interface, `most` but for a list of devices that somebody drops."""

    def limit(target: bytes) -> int:
        return MAX_DROP_BYTES if target.partition(b"?")[0] == DROP.encode() else min(most, body_limit(target))

    return limit
