"""`birthmark audit`: is the record of who changed what whole, and a proof of it to keep elsewhere."""

import asyncio
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from birthmark.cli.common import emit, read_file
from birthmark.cli.operator import ServerOptions, ServerOutputOptions
from birthmark.cli.options import command, commands

app = commands("The record of every change: verify it, export its signed end.", "birthmark audit verify")
Heads = Annotated[
    list[Path] | None,
    typer.Option("--head", metavar="FILE", help="A head that was exported earlier; may be given again."),
]


@command(app, "birthmark audit verify --head head-2026-11.json")
def verify(server: ServerOutputOptions, head: Heads = None) -> None:
    """Check every row, the signed head and heads that were exported earlier; names the first row that is wrong."""
    told = _asked(server, [read_file(path, 8192) for path in head or ()], rows=None)
    signed = told["head"] or {}
    view = {"rows": told["rows"], "digest": signed.get("digest"), "key": signed.get("key")}
    emit(server.as_json, told if server.as_json else view)


@command(app, "birthmark audit export --out head-2026-11.json")
def export(
    server: ServerOptions,
    out: Annotated[Path | None, typer.Option(help="Where to write the head; without it, standard output.")] = None,
    rows: Annotated[bool, typer.Option("--rows", help="Every row before the head, one JSON object per line.")] = False,
) -> None:
    """Verify the chain, then print its signed head.

    Kept elsewhere, it shows later that nothing before it was changed.
    """
    lines: list[str] = []
    told = _asked(server, [], rows=lines.append if rows else None)
    text = "".join(f"{line}\n" for line in [*lines, json.dumps(told["head"])])
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")
        typer.echo(f"Wrote {out}: {told['rows']} rows up to now are confirmed by it.", err=True)


def _asked(server: ServerOptions, heads: list[bytes], rows: Callable[[str], None] | None) -> dict[str, Any]:
    """Verify the file of the data directory, or let its server verify another database."""
    if (server.directory / "birthmark.db").exists():
        return asyncio.run(_read(server.directory, heads, rows))
    body = {"heads": [text.decode("utf-8", "replace") for text in heads], "rows": rows is not None}
    answer: dict[str, Any] = server.client.post("/audit/verify", body)
    for row in answer.pop("entries", []):
        if rows is not None:
            rows(json.dumps(row))
    return answer


async def _read(data: Path, heads: list[bytes], rows: Callable[[str], None] | None) -> dict[str, Any]:
    from birthmark.audit.heads import AuditKey, parse_head
    from birthmark.audit.report import entries, report
    from birthmark.audit.verify import verify_chain
    from birthmark.ca.keyfile import read_private
    from birthmark.store.readonly import ReadOnlySqlite

    exported = [parse_head(text) for text in heads]
    key = AuditKey(read_private(data / "audit.seed").strip().decode("ascii", "replace"))
    with closing(ReadOnlySqlite.open(data / "birthmark.db")) as database:
        verified = await verify_chain(database, key=key.public_key, exported=exported)
        if rows is not None:
            async for entry in entries(database):
                rows(json.dumps(entry))
        return report(verified)
