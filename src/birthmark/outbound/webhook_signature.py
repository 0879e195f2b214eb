"""Request signing in the Standard Webhooks format (https://www.standardwebhooks.com, version 1).

`webhook-signature` has one signature per valid secret, separated by spaces; during a rotation both are valid.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence

SECRET_BEGINS = "whsec_"  # noqa: S105 - prefix of each secret
SECRET_BYTES = 32


def secret_of(key: bytes) -> str:
    """Return a secret in its displayed form."""
    return SECRET_BEGINS + base64.b64encode(key).decode()


def key_of(secret: str) -> bytes:
    """Return the signing key of a secret."""
    return base64.b64decode(secret.removeprefix(SECRET_BEGINS))


def headers_of(message_id: str, at_s: int, body: bytes, secrets: Sequence[str]) -> Mapping[str, str]:
    """Return the headers that let a receiver verify a call."""
    signed = f"{message_id}.{at_s}.".encode() + body
    signatures = (base64.b64encode(hmac.digest(key_of(one), signed, hashlib.sha256)).decode() for one in secrets)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(f"v1,{one}" for one in signatures),
    }
