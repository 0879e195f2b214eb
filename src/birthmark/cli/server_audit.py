"""Command `birthmark server audit`: verify the audit log, and export a proof of its integrity."""

import asyncio
import contextlib
import heapq
import json
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from birthmark.cli.input_files import read_file
from birthmark.cli.options.duration import parse_within
from birthmark.cli.options.row_filter import PickOptions
from birthmark.cli.options.server import ServerOptions, ServerOutputOptions, show
from birthmark.cli.output.command_output import emit, replacing
from birthmark.clock_and_entropy import SystemClock
from birthmark.durations import FORMS
from birthmark.operator_api.database_location_record import has_own_file

_MAX_FILE = 1 << 20
_LATEST = 100
_COLUMNS = ("at", "actor", "from", "by", "action", "subject")
_PATIENCE_S = 600.0
"""Timeout for the verification of millions of rows."""
Heads = Annotated[
    list[Path] | None,
    typer.Option("--head", metavar="FILE", help="Head that was exported earlier; may be repeated."),
]


def verify(server: ServerOutputOptions, head: Heads = None) -> None:
    """Verify the audit log.

    Checks every row of every chain, the signed heads and exported heads. Prints the first invalid row.

    Each worker of a server has its own chain, and its signatures cover the other chains.
    """
    told = verify_audit_chains(server, [read_file(path, _MAX_FILE) for path in head or ()], rows=None)
    if server.as_json:
        emit(server.as_json, told)
        return
    for one in told["chains"]:
        signed = one["head"]
        row = {"chain": one["chain"], "is": "intact: no rows were changed, removed or inserted"}
        emit(server.as_json, row | {"rows": one["rows"]} | {k: signed[k] for k in ("digest", "key")})


def list_(
    server: ServerOutputOptions,
    pick: PickOptions,
    subject: Annotated[str | None, typer.Argument(help="Object of the changes.")] = None,
    by: Annotated[str | None, typer.Option(metavar="ACTOR", help="Actor of the changes, such as user:anna.")] = None,
    about: Annotated[str | None, typer.Option(metavar="SUBJECT", help="Alternative to SUBJECT.")] = None,
    action: Annotated[
        str | None, typer.Option(help="Operation, such as dps.register; a trailing dot matches a prefix: dps.")
    ] = None,
    people: Annotated[
        bool, typer.Option("--people", help="Only changes by users and the local administrator.")
    ] = False,
    last: Annotated[
        timedelta | None,
        typer.Option(parser=parse_within, metavar="DURATION", help=f"Maximum age of the rows: {FORMS}."),
    ] = None,
) -> None:
    """List changes in the audit log, latest last.

    Prints 100 rows, or --limit. The chains are verified first.
    """
    from birthmark.audit.queries import AuditQuery

    if subject is not None and about is not None and subject != about:
        raise typer.BadParameter("it differs from SUBJECT", param_hint="--about")
    wanted = AuditQuery(by, subject if about is None else about, action, people)
    since = None if last is None else SystemClock().now() - last
    latest = LatestRows(pick.limit or _LATEST)
    every = replace(pick, limit=None)

    def keep(line: str) -> None:
        row = json.loads(line)
        if wanted.matches_row(row) and (since is None or datetime.fromisoformat(row["at"]) >= since):
            for one in every.filter_rows([row]):
                latest.add(one)

    verify_audit_chains(server, [], rows=keep)
    kept = latest.rows()
    show(
        kept if server.as_json else map(_add_source, kept),
        _COLUMNS,
        as_json=server.as_json,
        nothing="No row matches.",
    )


class LatestRows:
    """The latest rows of all audit chains, read one chain after the other."""

    def __init__(self, limit: int) -> None:
        self._most = limit
        self._of: dict[str, deque[dict[str, Any]]] = {}

    def add(self, row: dict[str, Any]) -> None:
        """Add the next row of a chain."""
        self._of.setdefault(row["chain"], deque(maxlen=self._most)).append(row)

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows by time, latest last; rows of one chain keep their order."""
        merged = heapq.merge(*self._of.values(), key=lambda row: datetime.fromisoformat(row["at"]))
        return list(merged)[-self._most :]


def _add_source(row: dict[str, Any]) -> dict[str, Any]:
    """Return an audit row with the user's source address and their token or session."""
    detail = row["detail"]
    by = next((f"{way} {detail[way]}" for way in ("token", "session") if way in detail), "")
    return {**row, "from": detail.get("from", ""), "by": by}


def export(
    server: ServerOptions,
    out: Annotated[Path | None, typer.Option(help="Output file for the heads. Default: standard output.")] = None,
    rows: Annotated[
        bool, typer.Option("--rows", help="Include every row before the heads, one JSON object per line.")
    ] = False,
) -> None:
    """Verify the audit log and print its signed heads.

    One head per line and chain.

    Stored elsewhere, a head proves later that no earlier row was changed. A file with rows is readable by its owner
    only.
    """
    with _open_output(out, 0o600 if rows else 0o666) as write:
        told = verify_audit_chains(server, [], rows=write if rows else None)
        for one in told["chains"]:
            write(json.dumps(one["head"]))
    if out is not None:
        typer.echo(f"Wrote {out}: it confirms the {told['rows']} audit rows to date.", err=True)


@contextlib.contextmanager
def _open_output(out: Path | None, mode: int) -> Iterator[Callable[[str], None]]:
    """Yield a function that writes a line; a file replaces an earlier one only after it is completely on disk."""
    if out is None:
        yield typer.echo
        return
    with replacing(out, mode) as file:

        def write(line: str) -> None:
            file.write(f"{line}\n".encode())

        yield write


def verify_audit_chains(
    server: ServerOptions, heads: list[bytes], rows: Callable[[str], None] | None
) -> dict[str, Any]:
    """Verify the database file of the data directory, or have the server verify another database."""
    if not server.is_elsewhere and has_own_file(server.directory):
        return asyncio.run(_read(server.directory, heads, rows))
    if rows is None:
        body = {"heads": [text.decode("utf-8", "replace") for text in heads]}
        told: dict[str, Any] = server.client.post("/audit/verify", body, patience_s=_PATIENCE_S)
        return told
    answer: dict[str, Any] = {}
    for answer in server.client.lines("/audit/rows"):
        for row in answer.pop("entries"):
            rows(json.dumps(row))
    return answer


async def _read(data: Path, heads: list[bytes], rows: Callable[[str], None] | None) -> dict[str, Any]:
    from birthmark.audit.chain_verification import verify_chains
    from birthmark.audit.signed_heads import AuditKey, parse_heads
    from birthmark.audit.verification_report_json import entries, report
    from birthmark.ca.key_files import read_private
    from birthmark.store.schema_revision import ReadOnlySqlite

    exported = [head for text in heads for head in parse_heads(text)]
    key = AuditKey(read_private(data / "audit.seed").strip().decode("ascii", "replace"))
    with closing(ReadOnlySqlite.open(data / "birthmark.db")) as database:
        verified = await verify_chains(database, key=key.public_key, exported=exported)
        if rows is not None:
            async for entry in entries(database, verified):
                rows(json.dumps(entry))
        return report(verified)
