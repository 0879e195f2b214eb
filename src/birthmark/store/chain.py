"""The hash chain over audit rows: each digest covers the row and the digest before it.

`digest(n) = SHA-256(digest(n-1) || canonical JSON of row n)`, beginning with 32 zero bytes. A row that was changed,
dropped or put in breaks every digest after it. Whoever can write the database could recompute them all; so the end of
the chain, its head, is signed with a key that is not in the database, in the same commit as the last rows.
"""

import hashlib
import json
from typing import Protocol

from birthmark.store.changes import AuditRow

GENESIS = bytes(32)
_HEAD = b"birthmark audit head 1\0"


class HeadSigner(Protocol):
    """Signs heads. `public_key` says which key it is (Ed25519, 32 raw bytes)."""

    @property
    def public_key(self) -> bytes: ...

    def sign(self, body: bytes) -> bytes: ...


def head_body(chain: str, seq: int, at_micros: int, digest: bytes) -> bytes:
    """Return what is signed of a head: the first `seq` rows of `chain` end in `digest`."""
    return _HEAD + json.dumps([chain, seq, at_micros, digest.hex()], separators=(",", ":")).encode()


def link(previous: bytes, chain: str, seq: int, at_micros: int, row: AuditRow) -> bytes:
    """Return the digest of `row` at place `seq` (1 is the first) of `chain`."""
    body = json.dumps(
        [chain, seq, at_micros, row.actor, row.action, row.subject, row.detail],
        ensure_ascii=True,
        separators=(",", ":"),
    )
    return hashlib.sha256(previous + body.encode()).digest()
