"""Signed heads: the end of an audit chain at a point in time, in the database and, if exported, outside of it."""

import hashlib
from datetime import datetime
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from birthmark.errors import InvalidRequestError
from birthmark.store import from_micros
from birthmark.store.row_mapper import RowMapper
from birthmark.store.signed_audit_chain import ChainEnd, head_body, parse_seen
from birthmark.untrusted_json_and_text import decode_json

MAX_HEAD_BYTES = 65_536


class HeadInvalidError(InvalidRequestError):
    """This is no exported head."""

    code = "audit.head_invalid"
    cause = "The file does not contain an exported head of an audit chain: {detail}."
    fix = "Pass a file that this command created: `birthmark server audit export --out head.json`"
    detail: object


class AuditKey:
    """Ed25519 key that signs heads.

    The key is derived from a secret of the data directory, which is not in the database.
    """

    def __init__(self, secret: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(
            hashlib.sha256(b"birthmark audit\0" + secret.encode()).digest()
        )
        self.public_key = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, body: bytes) -> bytes:
        return self._key.sign(body)

    def has_signed(self, body: bytes, signature: bytes) -> bool:
        """Return whether this key signed `body`."""
        return _is_signed(self.public_key, body, signature)


class Head(msgspec.Struct, frozen=True):
    """Signed head of a chain: the first `seq` rows of `chain` end in `digest`; `key` signed that at `at`.

    `others` is the signed text of the other chains' ends; None in a head of version 0.1.0's format.
    """

    chain: str
    seq: int
    at_micros: int = msgspec.field(name="at")
    digest: bytes
    key: bytes
    signature: bytes
    others: str | None = None

    @property
    def at(self) -> datetime:
        return from_micros(self.at_micros)

    @property
    def is_genuine(self) -> bool:
        """Return whether the embedded key signed it; the key's owner must be verified separately."""
        body = head_body(self.chain, self.seq, self.at_micros, self.digest, self.others)
        return _is_signed(self.key, body, self.signature)

    @property
    def seen(self) -> tuple[ChainEnd, ...]:
        """Ends of the other chains in this head; only a genuine head has them in order."""
        return () if self.others is None else parse_seen(self.others)

    def as_json(self) -> dict[str, Any]:
        """Return the stable exported form."""
        told = msgspec.to_builtins(self, builtin_types=(bytes,))
        return {name: value.hex() if isinstance(value, bytes) else value for name, value in told.items()}


HEADS = RowMapper(Head, at_micros="at")


def parse_head(text: bytes) -> Head:
    """Return an exported head. Raise `HeadInvalidError`."""
    if len(text) > MAX_HEAD_BYTES:
        raise HeadInvalidError(detail="it is too large")
    try:
        told: dict[str, Any] = decode_json(text, dict)
        if missing := [name for name in ("digest", "key", "signature") if name not in told]:
            is_row = "action" in told
            raise HeadInvalidError(detail="it has audit rows" if is_row else f"it has no '{missing[0]}'")
        digests = {name: bytes.fromhex(told[name]) for name in ("digest", "key", "signature")}
        return msgspec.convert(told | digests, Head)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        raise HeadInvalidError(detail=error) from error


def parse_heads(text: bytes) -> list[Head]:
    """Return the heads of an exported file: a single one, or one per line. Raise `HeadInvalidError`."""
    lines = [line for line in text.splitlines() if line.strip()]
    is_one_each = len(lines) > 1 and all(line.lstrip().startswith(b"{") for line in lines)
    return [parse_head(line) for line in lines] if is_one_each else [parse_head(text)]


def _is_signed(key: bytes, body: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, body)
    except (InvalidSignature, ValueError):
        return False
    return True
