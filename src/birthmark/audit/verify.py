"""Is the audit chain whole, and the one that was signed? Names the first row that says no."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from birthmark.audit.heads import HEADS, Head
from birthmark.errors import ConflictError
from birthmark.store import AuditRow, Changes, Database
from birthmark.store.chain import GENESIS, HeadSigner, link
from birthmark.store.database import Reader
from birthmark.store.keyed import find, page
from birthmark.store.schema import audit, audit_heads

BREAK = "audit.break"
_PAGE = 1000
ROWS = page(audit, "seq", "chain")
LAST_ROW = find(audit, "chain", of=("seq", "digest"), order=audit.c.seq.desc(), limit=1)
HEAD = find(audit_heads)


class AuditBrokenError(ConflictError):
    """The audit chain is broken."""

    code = "audit.chain_broken"
    cause = "Audit row {seq} of chain {chain} does not follow from the one before it: {detail}."
    fix = "Compare with a backup from before: this database was edited outside Birthmark."
    for_a_person = "somebody edited the database"
    chain: str
    detail: str
    seq: str


class AuditCutError(ConflictError):
    """The chain ends too early."""

    code = "audit.chain_cut"
    cause = (
        "{source} ends at row {signed} of chain {chain}, and the database at row {seq}: the rows between are missing."
    )
    fix = "Compare with a backup from before: rows were removed from the end, or an old copy was put in place."
    for_a_person = "somebody removed rows: a backup has to be compared"
    chain: str
    seq: int
    signed: int
    source: str


class AuditHeadError(ConflictError):
    """The chain has no head that confirms it."""

    code = "audit.head_refused"
    cause = "Nothing confirms the {seq} rows of chain {chain}: {detail}."
    fix = "Compare with a backup from before, and with heads that were exported: `birthmark audit verify --head FILE`."
    for_a_person = "a backup and exported heads have to be compared"
    chain: str
    detail: str
    seq: int


class AuditContradictedError(ConflictError):
    """A head contradicts the chain."""

    code = "audit.chain_contradicted"
    cause = "{source} has another digest at row {seq} of chain {chain}: that row or one before it was written anew."
    fix = "Compare the rows up to {seq} with a backup from before: the chain was recomputed without its key."
    for_a_person = "somebody wrote the chain anew: a backup has to be compared"
    chain: str
    seq: int
    source: str


class AuditBreakFoundError(ConflictError):
    """A break was found before."""

    code = "audit.break_found"
    cause = "Row {seq} of chain {chain} tells of a break before it: {detail}."
    fix = (
        "Compare the rows before {seq} with a backup: what differs was changed while no server ran. If nothing does, "
        "only the file audit.seed was lost or exchanged; this row stays and says since when."
    )
    for_a_person = "somebody removed rows: a backup has to be compared"
    chain: str
    detail: str
    seq: int


@dataclass(frozen=True, slots=True)
class Verified:
    """A chain that is whole, and its signed end."""

    rows: int
    head: Head | None


async def verify_chain(
    database: Reader, *, key: bytes | None, chain: str = "main", exported: Sequence[Head] = ()
) -> Verified:
    """Return what was checked. `key` is the public key that signs heads here; `exported` are heads kept elsewhere.

    Raise one of this module's errors, naming the first row that is wrong.
    """
    _check_exported(exported, key, chain)
    wanted = {head.seq: head for head in exported}
    seq, digest, broken_at = 0, GENESIS, None
    while rows := await database.all(ROWS, chain=chain, after=seq, limit=_PAGE):
        for row in rows:
            written = AuditRow(row["actor"], row["action"], row["subject"], row["detail"])
            expected = link(digest, chain, seq + 1, row["at"], written)
            if row["seq"] != seq + 1:
                missing = f"rows {seq + 1} to {row['seq'] - 1} are missing"
                raise AuditBrokenError(seq=row["seq"], chain=chain, detail=missing)
            if row["digest"] != expected:
                changed = "it, or its digest, was changed"
                raise AuditBrokenError(seq=row["seq"], chain=chain, detail=changed)
            seq, digest = seq + 1, expected
            if (outside := wanted.pop(seq, None)) is not None and outside.digest != digest:
                raise AuditContradictedError(seq=seq, chain=chain, source="The exported head")
            if row["action"] == BREAK and broken_at is None:
                broken_at = (seq, row["detail"])
    if wanted:
        raise AuditCutError(seq=seq, signed=max(wanted), chain=chain, source="An exported head")
    signed_end = await _head(database, chain)
    _check_head(signed_end, key, seq, digest, chain)
    if broken_at is not None:
        raise AuditBreakFoundError(seq=broken_at[0], chain=chain, detail=broken_at[1])
    return Verified(seq, signed_end)


def _check_exported(exported: Sequence[Head], key: bytes | None, chain: str) -> None:
    for head in exported:
        if head.chain != chain or not head.is_genuine or (key is not None and head.key != key):
            detail = f"the exported head of row {head.seq} was not signed by this installation's key"
            raise AuditHeadError(seq=head.seq, chain=chain, detail=detail)


def _check_head(head: Head | None, key: bytes | None, seq: int, digest: bytes, chain: str) -> None:
    facts: dict[str, Any] = {"seq": seq, "chain": chain}
    if head is None:  # an installation that has begun has rows: its first start writes some
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


async def note_break(
    database: Database, signer: HeadSigner, *, is_key_new: bool, is_used: bool = True, chain: str = "main"
) -> str | None:
    """Write down, before anything else is, that the chain is not as it was left; return what is wrong.

    For the start of a server: its next commit signs a new head over whatever rows it finds. A database from before
    heads were signed (`is_key_new`) is taken as it is, and one that nobody has used yet (not `is_used`) is empty.
    """
    last, head = await database.one(LAST_ROW, chain=chain), await _head(database, chain)
    seq, digest = (0, GENESIS) if last is None else (last["seq"], bytes(last["digest"]))
    if head is None and (not is_used or (is_key_new and seq)):
        return None
    try:
        _check_head(head, signer.public_key, seq, digest, chain)
    except ConflictError as error:
        detail = error.explain_cause()
        await database.commit(Changes().audit("server", BREAK, chain, found=detail))
        return detail
    return None


async def _head(database: Reader, chain: str) -> Head | None:
    rows = await database.all(HEAD, chain=chain)
    return HEADS.of(rows[0]) if rows else None
