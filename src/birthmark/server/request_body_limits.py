"""Maximum size of a request's body, by path."""

from collections.abc import Callable

from birthmark.blob_storage.wire import ACCOUNT_PATH, MAX_PUT_BYTES
from birthmark.webconsole.enroll.limits import DROP, MAX_DROP_BYTES

_KIB = 1024


# The first entry that the path starts with, or contains if the entry does not begin with a slash.
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
    """Return the maximum body size for a request target as sent."""
    path = target.partition(b"?")[0]
    for part, limit in BODY_LIMITS:
        if path.startswith(part) if part.startswith(b"/") else part in path:
            return limit
    return OTHERWISE


def operator_body_limit(most: int) -> Callable[[bytes], int]:
    """Return the body limit of the operator interface: `most`, except for uploads of device lists."""

    def limit(target: bytes) -> int:
        return MAX_DROP_BYTES if target.partition(b"?")[0] == DROP.encode() else min(most, body_limit(target))

    return limit


def stream_limit(target: bytes) -> int:
    """Return the maximum size of a body that is processed while it arrives; 0 for other request targets."""
    return MAX_PUT_BYTES if target.startswith(f"/{ACCOUNT_PATH}/".encode()) else 0
