"""Shared access signatures as a vendor's SDK signs them; the server only reads them."""

import base64
import hashlib
import hmac
from urllib.parse import quote

from birthmark.auth.sas import PREFIX


def make_sas(resource: str, key: bytes, expiry_s: int, policy: str | None = None) -> str:
    """Return a token for `resource`, valid until `expiry_s` (epoch seconds)."""
    encoded = quote(resource, safe="")
    signature = hmac.digest(key, f"{encoded}\n{expiry_s}".encode(), hashlib.sha256)
    text = f"{PREFIX}sr={encoded}&sig={quote(base64.b64encode(signature), safe='')}&se={expiry_s}"
    return f"{text}&skn={quote(policy, safe='')}" if policy else text
