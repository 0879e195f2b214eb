"""Verification of the audit chains and their signatures; reports the first invalid row."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from birthmark.audit.signed_heads import HEADS, Head
from birthmark.errors import ConflictError
from birthmark.net.fair_scheduler import yield_turn
from birthmark.store import AuditRow, Changes, Database, statement
from birthmark.store.core_tables import audit, audit_heads
from birthmark.store.database import DatabaseReader, Row
from birthmark.store.database_lock import MAIN
from birthmark.store.signed_audit_chain import GENESIS, HeadSigner, link
from birthmark.store.table_statements import find, page

BREAK = "audit.break"
RESTORED = "server.restored"
"""Row after a gap: a restored backup skips positions that the lost server may have reported."""
_PAGE = 1000
ROWS = page(audit, "seq", "chain")
LAST_ROW = find(audit, "chain", of=("seq", "digest"), order=audit.c.seq.desc(), limit=1)
HEAD = find(audit_heads)
HEADS_OF_ALL = statement(select(audit_heads))
CHAINS = statement(select(audit.c.chain).distinct())
ROW = find(audit)


class AuditBrokenError(ConflictError):
    """The audit chain is broken."""

    code = "audit.chain_broken"
    cause = "Audit row {seq} of chain {chain} does not follow from the previous row: {detail}."
    fix = "This database was edited outside Birthmark. Compare it with an earlier backup."
    for_a_person = "the database was edited outside Birthmark; compare it with a backup"
    chain: str
    detail: str
    seq: str


class AuditCutError(ConflictError):
    """The chain ends too early."""

    code = "audit.chain_cut"
    cause = (
        "{source} confirms row {signed} of chain {chain}, but the database ends at row {seq}: the rows after row "
        "{seq} are missing."
    )
    fix = "Rows were removed from the end, or an old copy was restored. Compare the database with an earlier backup."
    for_a_person = "rows were removed; compare the database with a backup"
    chain: str
    seq: int
    signed: int
    source: str


class AuditHeadError(ConflictError):
    """The chain has no head that confirms it."""

    code = "audit.head_refused"
    cause = "No signature confirms the {seq} rows of chain {chain}: {detail}."
    fix = (
        "Compare the database with an earlier backup and with exported heads: `birthmark server audit verify --head "
        "FILE`."
    )
    for_a_person = "compare the database with a backup and with exported heads"
    chain: str
    detail: str
    seq: int


class AuditContradictedError(ConflictError):
    """A head contradicts the chain."""

    code = "audit.chain_contradicted"
    cause = "{source} has a different digest for row {seq} of chain {chain}: this row or an earlier row was rewritten."
    fix = "The chain was recomputed without its key. Compare the rows up to row {seq} with an earlier backup."
    for_a_person = "the chain was rewritten; compare it with a backup"
    chain: str
    seq: int
    source: str


class AuditBreakFoundError(ConflictError):
    """A break was found before."""

    code = "audit.break_found"
    cause = "Row {seq} of chain {chain} records a break in the preceding rows: {detail}."
    fix = (
        "Compare the rows before row {seq} with a backup: rows that differ were changed while no server ran. If no "
        "row differs, only the file audit.seed was lost or replaced. Row {seq} remains and records when the break "
        "was found."
    )
    for_a_person = "rows were removed; compare the database with a backup"
    chain: str
    detail: str
    seq: int


@dataclass(frozen=True, slots=True)
class VerifiedChain:
    """A verified chain and its signed end."""

    chain: str
    rows: int
    """Sequence number of the last row."""
    head: Head | None
    left_out: int = 0
    """Number of positions that a restored backup skipped."""


@dataclass(frozen=True, slots=True)
class ChainClaim:
    """Claim about a chain: its first `seq` rows end in `digest`."""

    chain: str
    seq: int
    digest: bytes
    source: str


async def verify_chains(
    database: DatabaseReader, *, key: bytes | None, exported: Sequence[Head] = ()
) -> Sequence[VerifiedChain]:
    """Return the verified chains, one per worker; the heads of each also cover the others.

    `key` is the public key that signs heads here; `exported` are heads kept elsewhere. Raise one of this module's
    errors for the first invalid row.
    """
    exported = [*dict.fromkeys(exported)]
    for head in exported:
        _check_exported(head, key)
        await yield_turn()
    heads = [HEADS.of(row) for row in await database.all(HEADS_OF_ALL)]
    claims = [claim for head in exported for claim in _claims_of(head, f"An exported head of chain {head.chain}")]
    for head in heads:
        if head.key == key and head.is_genuine:
            claims += _claims_of(head, f"The signed head of chain {head.chain}", of_itself=False)
    named = {row["chain"] for row in await database.all(CHAINS)}
    named |= {head.chain for head in heads} | {claim.chain for claim in claims}
    return [await verify_chain(database, key=key, chain=chain, claims=claims) for chain in sorted(named or {MAIN})]


async def verify_chain(
    database: DatabaseReader, *, key: bytes | None, chain: str = MAIN, claims: Sequence[ChainClaim] = ()
) -> VerifiedChain:
    """Return one verified chain, which must match each of its `claims`. Raise the same errors."""
    walk = _Walk(chain, claims)
    while True:
        before = walk.seq
        while rows := await database.all(ROWS, chain=chain, after=walk.seq, limit=_PAGE):
            for row in rows:
                walk.follow(row)
                await yield_turn()  # let other work proceed
        head = await _head(database, chain)
        if head is None or head.seq <= walk.seq or walk.seq == before:  # otherwise a server wrote in between
            break
    walk.check_claims()
    _check_head(head, key, walk.seq, walk.digest, chain)
    if walk.broken_at is not None:
        seq, detail = walk.broken_at
        raise AuditBreakFoundError(seq=seq, chain=chain, detail=detail)
    return VerifiedChain(chain, walk.seq, head, walk.left_out)


class _Walk:
    """Walk over a chain from its first row: each row must follow its predecessor and match the claims."""

    def __init__(self, chain: str, claims: Sequence[ChainClaim]) -> None:
        self._chain = chain
        self._wanted: defaultdict[int, list[ChainClaim]] = defaultdict(list)
        for claim in claims:
            if claim.chain == chain:
                self._wanted[claim.seq].append(claim)
        self.seq, self.digest, self.left_out = 0, GENESIS, 0
        self.broken_at: tuple[int, str] | None = None

    def follow(self, row: Row) -> None:
        """Verify the next row. Raise `AuditBrokenError` or `AuditContradictedError`."""
        written = AuditRow(row["actor"], row["action"], row["subject"], row["detail"])
        expected = link(self.digest, self._chain, row["seq"], row["at"], written)
        if row["seq"] != self.seq + 1 and not (row["seq"] > self.seq and _is_restored(row, self.seq)):
            missing = f"rows {self.seq + 1} to {row['seq'] - 1} are missing"
            raise AuditBrokenError(seq=row["seq"], chain=self._chain, detail=missing)
        if row["digest"] != expected:
            changed = "it, or its digest, was changed"
            raise AuditBrokenError(seq=row["seq"], chain=self._chain, detail=changed)
        self.left_out += row["seq"] - self.seq - 1
        self.seq, self.digest = row["seq"], expected
        for claim in self._wanted.pop(self.seq, ()):
            if claim.digest != expected:
                raise AuditContradictedError(seq=self.seq, chain=self._chain, source=claim.source)
        if row["action"] == BREAK and self.broken_at is None:
            self.broken_at = (self.seq, row["detail"])

    def check_claims(self) -> None:
        """Raise `AuditCutError` if a claim refers to a row after the last one."""
        if self._wanted:
            last = max(self._wanted)
            raise AuditCutError(seq=self.seq, signed=last, chain=self._chain, source=self._wanted[last][0].source)


def _is_restored(row: Row, last: int) -> bool:
    """Return whether a row records the restore of a backup that ended at row `last`."""
    if row["action"] != RESTORED:
        return False
    try:
        return bool(json.loads(row["detail"]).get("from") == last)
    except (ValueError, AttributeError):
        return False


def _claims_of(head: Head, source: str, *, of_itself: bool = True) -> list[ChainClaim]:
    """Return the claims of a genuine head about the other chains and its own."""
    own = [ChainClaim(head.chain, head.seq, head.digest, source)] if of_itself else []
    return own + [ChainClaim(one.chain, one.seq, one.digest, source) for one in head.seen]


def _check_exported(head: Head, key: bytes | None) -> None:
    if not head.is_genuine or (key is not None and head.key != key):
        detail = f"the exported head of row {head.seq} was not signed by this installation's key"
        raise AuditHeadError(seq=head.seq, chain=head.chain, detail=detail)


def _check_head(head: Head | None, key: bytes | None, seq: int, digest: bytes, chain: str) -> None:
    facts: dict[str, Any] = {"seq": seq, "chain": chain}
    if head is None:  # an initialized installation has rows: the first start writes some
        detail = "its signed head is missing" if seq else "it is empty, though this installation has worked"
        raise AuditHeadError(detail=detail, **facts)
    if key is None or head.key != key:
        raise AuditHeadError(detail="its head was signed by another key", **facts)
    if not head.is_genuine:
        raise AuditHeadError(detail="the signature of its head is wrong", **facts)
    if head.seq > seq:
        raise AuditCutError(signed=head.seq, source="The signed head", **facts)
    if head.seq < seq:
        raise AuditHeadError(detail=f"its head is of row {head.seq}", **facts)
    if head.digest != digest:
        raise AuditContradictedError(source="The signed head", **facts)


async def record_chain_break(
    database: Database, signer: HeadSigner, *, is_key_new: bool, is_used: bool = True
) -> str | None:
    """Record first of all that this worker's chain differs from its last state; return the error details.

    Call it at server start, as the next commit signs a new head over all rows. A database from before heads were signed
    (`is_key_new`) is accepted as is; an unused one (not `is_used`) is empty.
    """
    chain = database.worker
    last, head = await database.one(LAST_ROW, chain=chain), await _head(database, chain)
    seq, digest = (0, GENESIS) if last is None else (last["seq"], bytes(last["digest"]))
    claims = await _claims_of_others(database, signer.public_key, chain)
    if head is None and not claims and (not is_used or (is_key_new and seq)):
        return None
    try:
        if head is not None or seq or claims or chain == MAIN:  # a new worker has no chain yet
            _check_head(head, signer.public_key, seq, digest, chain)
        for claim in claims:
            row = await database.one(ROW, chain=chain, seq=claim.seq)
            if row is None:
                raise AuditCutError(seq=seq, signed=claim.seq, chain=chain, source=claim.source)
            if bytes(row["digest"]) != claim.digest:
                raise AuditContradictedError(seq=claim.seq, chain=chain, source=claim.source)
    except ConflictError as error:
        detail = error.explain_cause()
        await database.commit(Changes().audit("server", BREAK, chain, found=detail))
        return detail
    return None


async def _claims_of_others(database: DatabaseReader, key: bytes, chain: str) -> list[ChainClaim]:
    """Return the claims of other chains' genuine heads about this one."""
    heads = [HEADS.of(row) for row in await database.all(HEADS_OF_ALL)]
    genuine = [head for head in heads if head.chain != chain and head.key == key and head.is_genuine]
    claims = [one for head in genuine for one in _claims_of(head, f"The signed head of chain {head.chain}")]
    return [claim for claim in claims if claim.chain == chain]


async def _head(database: DatabaseReader, chain: str) -> Head | None:
    rows = await database.all(HEAD, chain=chain)
    return HEADS.of(rows[0]) if rows else None
