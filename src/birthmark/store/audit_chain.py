"""The hash chain over audit rows: each digest covers the row and the digest before it.

`digest(n) = SHA-256(digest(n-1) || canonical JSON of row n)`, beginning with 32 zero bytes. A row that was changed,
dropped or put in breaks every digest after it. Whoever can write the database could recompute them all; so the end of
the chain, its head, is signed with a key that is not in the database, in the same commit as the last rows.

Each worker has a chain of its own, of its name. What it signs also covers the ends of the others' chains as it last saw
them, so that a chain that is cut, with its head, is missed by the others. Version 1 of a head knew of no others.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from birthmark.store.unit_of_work import AuditRow

GENESIS = bytes(32)
LOOK_AGAIN_S = 1.0
"""How old what a worker knows of other chains may be when it signs."""

_compact = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
_HEAD = b"birthmark audit head 1\0"
_HEAD_WITH_OTHERS = b"birthmark audit head 2\0"


class HeadSigner(Protocol):
    """Signs heads. `public_key` says which key it is (Ed25519, 32 raw bytes)."""

    @property
    def public_key(self) -> bytes: ...

    def sign(self, body: bytes) -> bytes: ...

    def has_signed(self, body: bytes, signature: bytes) -> bool:
        """Say whether this key signed `body`."""
        ...


class ChainEnd(NamedTuple):
    """The end of another worker's chain, as it was seen."""

    chain: str
    seq: int
    digest: bytes


def head_body(chain: str, seq: int, at_micros: int, digest: bytes, others: str | None) -> bytes:
    """Return what is signed of a head: the first `seq` rows of `chain` end in `digest`, and `others` was seen.

    `others` is as `render_seen` writes it, and None in version 1.
    """
    fields: list[str | int] = [chain, seq, at_micros, digest.hex()]
    if others is None:
        return _HEAD + _compact(fields).encode()
    return _HEAD_WITH_OTHERS + _compact([*fields, others]).encode()


def render_seen(seen: Iterable[ChainEnd]) -> str:
    """Return ends of chains as text, in the order of their names."""
    return _compact([[one.chain, one.seq, one.digest.hex()] for one in sorted(seen)])


def parse_seen(text: str) -> tuple[ChainEnd, ...]:
    """Return what `render_seen` wrote. Raise `ValueError` for anything else."""
    try:
        return tuple([ChainEnd(str(chain), int(seq), bytes.fromhex(digest)) for chain, seq, digest in json.loads(text)])
    except (TypeError, RecursionError) as error:
        raise ValueError("these are no ends of chains") from error


class OtherChains:
    """The ends of the other chains as one worker last saw them. What it has seen once it does not forget."""

    def __init__(self, chain: str, signer: HeadSigner | None) -> None:
        self._chain = chain
        self._signer = signer
        self._seen: dict[str, ChainEnd] = {}
        self.text = render_seen(())
        """What is signed of it."""
        self.look_again_at = 0.0
        """When it is time to look at the heads, by the monotonic clock."""

    def note(self, heads: Iterable[Mapping[str, Any]], now: float) -> None:
        """Note the heads that are in the database, its own too: that one says what was seen before a restart.

        One that another key signed, or none, proves nothing, and one that ends earlier takes nothing back.
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

    def _add(self, one: ChainEnd) -> None:
        if one.seq > self._seq_of(one.chain):
            self._seen[one.chain] = one
            self.text = render_seen(self._seen.values())

    def _is_genuine(self, head: Mapping[str, Any]) -> bool:
        body = head_body(head["chain"], head["seq"], head["at"], bytes(head["digest"]), head["others"])
        return self._signer is not None and self._signer.has_signed(body, bytes(head["signature"]))


def link(previous: bytes, chain: str, seq: int, at_micros: int, row: AuditRow) -> bytes:
    """Return the digest of `row` at place `seq` (1 is the first) of `chain`."""
    body = _compact([chain, seq, at_micros, row.actor, row.action, row.subject, row.detail])
    return hashlib.sha256(previous + body.encode()).digest()
