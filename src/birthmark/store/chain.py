"""The hash chain over audit rows: each digest covers the row and the digest before it.

`digest(n) = SHA-256(digest(n-1) || canonical JSON of row n)`, beginning with 32 zero bytes. A row that was changed,
dropped or put in breaks every digest after it.
"""

import hashlib
import json

from birthmark.store.changes import AuditRow

GENESIS = bytes(32)


def link(previous: bytes, chain: str, seq: int, at_micros: int, row: AuditRow) -> bytes:
    """Return the digest of `row` at place `seq` (1 is the first) of `chain`."""
    body = json.dumps(
        [chain, seq, at_micros, row.actor, row.action, row.subject, row.detail],
        ensure_ascii=True,
        separators=(",", ":"),
    )
    return hashlib.sha256(previous + body.encode()).digest()
