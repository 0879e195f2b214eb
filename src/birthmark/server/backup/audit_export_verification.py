"""Exported audit rows for a restore: verified as complete and from the restored server.

The rows are loaded into a separate database and verified like a server's. Each row is linked to the previous one, and
the signed heads at the end of the file confirm the last row of every chain.
"""

import heapq
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import msgspec

from birthmark.audit.chain_verification import ROW, ROWS, VerifiedChain, verify_chains
from birthmark.audit.signed_heads import HEADS, parse_head
from birthmark.clock_and_entropy import Clock
from birthmark.errors import BirthmarkError, InvalidRequestError
from birthmark.ownership_and_sudo_commands import as_who_asked
from birthmark.pki.certificates import MAX_BUNDLE_BYTES, kind_of
from birthmark.store import Changes, Database, from_micros, insert, open_database, to_micros, upsert
from birthmark.store.core_tables import audit, audit_heads
from birthmark.store.unit_of_work import canonical
from birthmark.text_file_encodings import BLANKS, utf_16_of
from birthmark.untrusted_json_and_text import decode_json, describe_unseen_at_error

_MAX_LINE = 1 << 20
_PAGE = 500
_ADD_ROW, _ADD_HEAD = insert(audit), upsert(audit_heads)
End = tuple[int, bytes]
"""Last row of a chain: its position and digest."""


class ReplayRefusedError(InvalidRequestError):
    """The file is not a complete audit export."""

    code = "server.replay_refused"
    cause = "{path} is not a complete export of this server's audit rows: {detail}."
    fix = (
        "Pass an unedited copy of the output of `birthmark server audit export --rows --out FILE` from the lost "
        "server. Use `{without}` only if no copy exists: this command restores only the backup, and later "
        "revocations are lost."
    )
    detail: str
    path: Path
    without: str = "birthmark server restore FILE --data DIRECTORY"


class ExportedRow(msgspec.Struct, frozen=True):
    """An exported audit row."""

    chain: str
    seq: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    digest: str


@dataclass(frozen=True, slots=True)
class AuditExport:
    """Rows since the backup, ordered within each chain and chains by time, and the end time of the file."""

    rows: Sequence[ExportedRow]
    until: datetime | None = None
    ends: Mapping[str, int] = field(default_factory=dict)
    """Position of the last row of every chain."""


async def read_export(
    path: Path, building: Path, ends: Mapping[str, End], actions: frozenset[str], *, key: bytes, clock: Clock
) -> AuditExport:
    """Return the rows with these actions that follow the `ends` of the restored chains.

    `building` is the directory of the temporary database; `key` signed the heads. Raise `ReplayRefusedError`.
    """
    database = await open_database(f"sqlite:///{building / 'replay.db'}", clock, worker="restore")
    try:
        await _load(database, path)
        verified = await verify_chains(database, key=key)
        chains = [await _since(database, one, ends.get(one.chain, (0, b"")), actions) for one in verified]
    except _NotOfThisServerError as error:
        raise ReplayRefusedError(path=path, detail=str(error)) from error
    except BirthmarkError as error:
        raise ReplayRefusedError(path=path, detail=error.explain_cause().rstrip(".")) from error
    finally:
        await database.close()
    until = max(one.head.at for one in verified if one.head is not None)
    # Within a chain its own order counts, because the clock may have been set back.
    rows = list(heapq.merge(*chains, key=lambda row: row.at))
    return AuditExport(rows, until, {one.chain: one.rows for one in verified})


class _NotOfThisServerError(Exception):
    """The file is from another server, or is not an export."""


async def _load(database: Database, path: Path) -> None:
    changes, has_rows = Changes(), False
    for number, line in enumerate(_lines(path), 1):
        try:
            if b'"signature"' in line and b'"action"' not in line:
                changes.run(_ADD_HEAD, **HEADS.row(parse_head(line)))
            else:
                row = decode_json(line, ExportedRow)
                told = {"at": to_micros(row.at), "detail": canonical(row.detail), "digest": bytes.fromhex(row.digest)}
                changes.run(_ADD_ROW, **msgspec.structs.asdict(row) | told)
                has_rows = True
        except (BirthmarkError, msgspec.MsgspecError, ValueError, RecursionError) as error:
            seen = kind_of(_begin(path)) if number == 1 else ""
            seen = seen or describe_unseen_at_error(line, str(error)).partition("; ")[2]
            said = f"line {number} is neither a row nor a head, or it was cut{seen and f' ({seen})'}"
            raise _NotOfThisServerError(said) from error
        if len(changes.writes) == _PAGE:
            await database.commit(changes)
            changes = Changes()
    if not has_rows:
        raise _NotOfThisServerError("it has no rows")
    await database.commit(changes)


def _opened(path: Path) -> IO[bytes]:
    with as_who_asked():
        return path.open("rb")


def _begin(path: Path) -> bytes:
    with _opened(path) as file:
        return file.read(MAX_BUNDLE_BYTES)


def _lines(path: Path) -> Iterator[bytes]:
    with _opened(path) as file:
        codec = utf_16_of(file.read(len("{}".encode("utf-16")))) or "utf-8-sig"
        file.seek(0)
        errors = "surrogateescape" if codec == "utf-8-sig" else "strict"
        text = io.TextIOWrapper(file, encoding=codec, errors=errors)
        try:
            while line := text.readline(_MAX_LINE):
                if line.strip(BLANKS):
                    yield line.encode(errors=errors)
        except UnicodeError as error:
            raise _NotOfThisServerError("it is truncated in the middle of a character") from error


async def _since(database: Database, chain: VerifiedChain, end: End, actions: frozenset[str]) -> list[ExportedRow]:
    """Return the rows after the backup's last row, which the export must contain unless it ends before."""
    seq, digest = end
    if chain.rows < seq:
        return []
    if seq:
        known = await database.one(ROW, chain=chain.chain, seq=seq)
        if known is None or bytes(known["digest"]) != digest:
            raise _NotOfThisServerError(f"its row {seq} of chain {chain.chain} differs from the backup's")
    found: list[ExportedRow] = []
    while rows := await database.all(ROWS, chain=chain.chain, after=seq, limit=_PAGE):
        seq = rows[-1]["seq"]
        found += [_row(row) for row in rows if row["action"] in actions]
    return found


def _row(row: Any) -> ExportedRow:
    told = {"at": from_micros(row["at"]), "detail": json.loads(row["detail"]), "digest": bytes(row["digest"]).hex()}
    return ExportedRow(**dict(row) | told)
