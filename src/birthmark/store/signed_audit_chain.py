"""The hash chain over audit rows: each digest covers the row and the previous digest.

`digest(n) = SHA-256(digest(n-1) || canonical JSON of row n)`, starting with 32 zero bytes. A changed, removed or
inserted row breaks every later digest. An attacker with write access to the database could recompute all digests.
Therefore the end of the chain, its head, is signed with a key outside the database, in the same commit as the last
rows.

Each worker has a separate chain under its name. Its signature also covers the last known ends of the other chains, so
that they reveal a chain that was truncated together with its head. Heads of version 1 do not cover other chains.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from birthmark.store.unit_of_work import AuditRow

GENESIS = bytes(32)
LOOK_AGAIN_S = 1.0
"""Maximum age in seconds of the known ends of other chains when a worker signs."""

_compact = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
_HEAD = b"birthmark audit head 1\0"
_HEAD_WITH_OTHERS = b"birthmark audit head 2\0"


class HeadSigner(Protocol):
    """Signs heads. `public_key` identifies the key (Ed25519, 32 raw bytes)."""

    @property
    def public_key(self) -> bytes: ...

    def sign(self, body: bytes) -> bytes: ...

    def has_signed(self, body: bytes, signature: bytes) -> bool:
        """Return whether this key signed `body`."""
        ...


class ChainEnd(NamedTuple):
    """The observed end of another worker's chain."""

    chain: str
    seq: int
    digest: bytes


def head_body(chain: str, seq: int, at_micros: int, digest: bytes, others: str | None) -> bytes:
    """Return the signed content of a head: the first `seq` rows of `chain` end in `digest`, with the observed `others`.

    `others` has the format of `render_seen`; None in version 1.
    """
    fields: list[str | int] = [chain, seq, at_micros, digest.hex()]
    if others is None:
        return _HEAD + _compact(fields).encode()
    return _HEAD_WITH_OTHERS + _compact([*fields, others]).encode()


def render_seen(ends: Iterable[ChainEnd]) -> str:
    """Return ends of chains as text, ordered by name."""
    return _compact([[one.chain, one.seq, one.digest.hex()] for one in sorted(ends)])


def parse_seen(text: str) -> tuple[ChainEnd, ...]:
    """Parse the output of `render_seen`. Raise `ValueError` for anything else."""
    try:
        return tuple([ChainEnd(str(chain), int(seq), bytes.fromhex(digest)) for chain, seq, digest in json.loads(text)])
    except (TypeError, RecursionError) as error:
        raise ValueError("the text is not a list of chain ends") from error


class OtherChains:
    """The ends of the other chains, as last observed by one worker. An observed end is never discarded."""

    def __init__(self, chain: str, signer: HeadSigner | None) -> None:
        self._chain = chain
        self._signer = signer
        self._seen: dict[str, ChainEnd] = {}
        self.text = render_seen(())
        """The text that heads sign."""
        self.look_again_at = 0.0
        """When to read the heads again, on the monotonic clock."""

    def note(self, heads: Iterable[Mapping[str, Any]], now: float) -> None:
        """Record the heads in the database; this worker's own head contains what it observed before a restart.

        Heads without a valid signature, or with a lower end, change nothing.
        """
        self.look_again_at = now + LOOK_AGAIN_S
        for head in heads:
            if head["chain"] == self._chain:
                if self._is_genuine(head) and head["others"] is not None:
                    for one in parse_seen(head["others"]):
                        self._add(one)
            elif head["seq"] > self._seq_of(head["chain"]) and self._is_genuine(head):
                self._add(ChainEnd(head["chain"], head["seq"], bytes(head["digest"])))

    def _seq_of(self, chain: str) -> int:
        known = self._seen.get(chain)
        return 0 if known is None else known.seq

    def _add(self, end: ChainEnd) -> None:
        if end.seq > self._seq_of(end.chain):
            self._seen[end.chain] = end
            self.text = render_seen(self._seen.values())

    def _is_genuine(self, head: Mapping[str, Any]) -> bool:
        body = head_body(head["chain"], head["seq"], head["at"], bytes(head["digest"]), head["others"])
        return self._signer is not None and self._signer.has_signed(body, bytes(head["signature"]))


def link(previous: bytes, chain: str, seq: int, at_micros: int, row: AuditRow) -> bytes:
    """Return the digest of `row` at position `seq` (starting at 1) of `chain`."""
    body = _compact([chain, seq, at_micros, row.actor, row.action, row.subject, row.detail])
    return hashlib.sha256(previous + body.encode()).digest()
