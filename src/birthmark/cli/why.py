"""Command `birthmark why`: explain why a request was refused."""

import asyncio
import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from birthmark.cli.device_find_and_show import show_device
from birthmark.cli.log_patterns import diagnostics_in, harmless_in, refusals_in, tracking_ids_in
from birthmark.cli.option_checks_and_confirmation import only
from birthmark.cli.options.duration import parse_within
from birthmark.cli.options.server import ServerOptions, ServerOutputOptions, show
from birthmark.cli.output.command_output import NOT_FOUND
from birthmark.cli.output.command_refusal_journal import noted
from birthmark.cli.output.table import wrap_to_terminal
from birthmark.cli.refusal_correlation import Row, ThisServer, correlate_refusals
from birthmark.clock_and_entropy import SystemClock
from birthmark.durations import FORMS
from birthmark.errors import BirthmarkError
from birthmark.operator_api.client.server_discovery_and_api_client import (
    NoAnswerInTimeError,
    ServerNotRunningError,
    read_endpoints,
)
from birthmark.operator_api.database_location_record import has_own_file
from birthmark.untrusted_json_and_text import printable

_FEWEST_WORDS = 3  # fewer match any text
_MORE = 20  # rows per side, enough for both halves of a refusal
_MOST = 1000
_REASONS = ("count", "new", "code", "what", "fix")
_FACT = re.compile(r"\{(\w+)\}")
_OPTIONAL = {"options"}
"""Facts that may be empty: options of a command."""
_SHOWN = ("registration_id", "device_id", "thing", "common_name", "thumbprint")


def why(
    ctx: typer.Context,
    server: ServerOutputOptions,
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="ID",
            help=(
                "Tracking ID, registration ID, device ID, thing ID, common name or thumbprint; or pasted text in "
                "quotes."
            ),
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Number of refusals, latest first.")] = 5,
    code: Annotated[str | None, typer.Option(help="Code of the refusals, such as dps.disabled.")] = None,
    reasons: Annotated[
        bool, typer.Option("--reasons", help="List the codes of recent refusals with counts and fixes.")
    ] = False,
    last: Annotated[
        timedelta | None,
        typer.Option(
            parser=parse_within,
            metavar="DURATION",
            help=f"Period of --reasons: {FORMS}; at least an hour. Default: one day.",
        ),
    ] = None,
) -> None:
    """Explain refusals with their causes and fixes.

    Without an ID, explains the latest refusals.

    For a device without refusals, it shows its records, like `birthmark device show`.
    """
    only(reasons, "with --reasons", last=last)
    if reasons:
        only(code is None, "without --reasons", code=code)
        if subject is not None:
            raise typer.BadParameter("--reasons applies to all devices", param_hint="ID")
        _tell_reasons(server, timedelta(days=1) if last is None else max(last, timedelta(hours=1)))
        return
    data = server.directory
    if code is None and subject is not None and _explain_text(server, subject):
        return
    this, source = _server_of(data), ctx.get_parameter_source("data")
    said = "DEFAULT" if source is None else source.name
    is_any = not this.scope and said == "DEFAULT"
    # An error on this machine alone belongs to no server. It is shown on request, and if it is newer than the start of
    # this shell's server.
    since, is_asked_for = "" if is_any else _started(data), subject is not None or code is not None
    here = [
        row
        for row in noted(subject or code, _MOST if code else limit + _MORE)
        if code is None or row["code"] == code
        if is_any or (this.has(row) if row["server"] is not None else is_asked_for or _is_told(row, since, said))
    ]
    found = correlate_refusals(_list_refusals(server, subject, limit if code else limit + _MORE, here, code), here)[
        :limit
    ]
    if not found:
        of = "".join(f" {word} {printable(name)}" for word, name in (("for", subject), ("with code", code)) if name)
        typer.echo(f"No refusals{of}.", err=True)
        if subject is None:
            return
        if not server.as_json and code is None:  # the table would hold refusals; none exist
            with contextlib.suppress(ServerNotRunningError, NoAnswerInTimeError):
                show_device(server, subject)
        raise typer.Exit(NOT_FOUND)
    for refusal in found:
        _show(server.as_json, refusal, _lines(refusal))


def _tell_reasons(server: ServerOutputOptions, last: timedelta) -> None:
    rows = list(_reasons(server, last))
    if not server.as_json:
        for row in rows:
            latest = row["latest"] or _get_general_reason(row["code"])
            row |= {"what": latest["message"], "fix": latest["fix"], "new": "new" if row["is_new"] else ""}
    show(rows, _REASONS, as_json=server.as_json, nothing="No refusals.")


def _get_general_reason(code: str) -> Row:
    """Return the general message and fix of a code when no recorded refusal has it."""
    known = next(iter(refusals_in(code)), None)
    return {
        "message": "" if known is None else _fill_placeholders(known.message),
        "fix": "" if known is None else _fill_placeholders(known.fix),
    }


def _fill_placeholders(template: str) -> str:
    """Return a template with placeholders for facts: `{registration_id}` becomes REGISTRATION-ID."""
    return _FACT.sub(lambda one: "" if one[1] in _OPTIONAL else one[1].upper().replace("_", "-"), template)


def _reasons(server: ServerOptions, last: timedelta) -> Iterable[Row]:
    """Return the reasons of refusals from the running server, otherwise from its database."""
    try:
        return list(server.client.rows("/refusals/reasons", back_s=int(last.total_seconds())))
    except (ServerNotRunningError, NoAnswerInTimeError):
        if server.is_elsewhere or not has_own_file(server.directory):
            raise
        return asyncio.run(_read_reasons(server.directory, last))


def _started(data: Path) -> str:
    """Return the time since which the server of a data directory has been ready; empty if none is."""
    try:
        at = (data / "endpoints.json").stat().st_mtime
    except OSError:
        return ""
    return datetime.fromtimestamp(at, UTC).isoformat()


def _is_told(row: Row, since: str, said: str) -> bool:
    return said != "COMMANDLINE" and str(row["at"]) > since


def _explain_text(server: ServerOutputOptions, text: str) -> bool:
    """Print the meaning of pasted text or a code, and return whether it has one; a possible ID is not explained."""
    ids = tracking_ids_in(text)
    if noted(text, 1) or text.strip().lower() in ids:
        return False
    rows: list[Row] = []
    for tracking_id in ids:
        with contextlib.suppress(BirthmarkError):
            rows += _fetch_refusals(server, tracking_id, 1)
    rows = rows or _find_refusals_by_message(server, text)
    told: list[tuple[Row, Iterable[str]]] = [(row, _lines(row)) for row in rows]
    seen = {row["code"] for row in rows}
    for cls in refusals_in(text):
        if cls.code not in seen:
            cause, fix = _fill_placeholders(cls.cause), _fill_placeholders(cls.fix)
            lines = [f"{cls.code}  in general:", f"  Why: {cause}", f"  Fix: {fix}"]
            told.append(({"code": cls.code, "cause": cause, "fix": fix}, lines))
    for known in harmless_in(text):
        row = {"program": known.program, "line": known.line, "may_be_ignored": True, "why": known.why}
        told.append((row, [f"{known.program}: may be ignored. {known.why}"]))
    for line in diagnostics_in(text):
        row = {"program": line.program, "line": line.line, "may_be_ignored": False, "why": line.cause, "fix": line.fix}
        told.append((row, [f"{line.program}: {line.line}", f"  Why: {line.cause}", f"  Fix: {line.fix}"]))
    for one, said in told:
        _show(server.as_json, one, said)
    return bool(told)


def _show(as_json: bool, row: Row, lines: Iterable[str]) -> None:
    for line in [json.dumps(row)] if as_json else [wrap_to_terminal(printable(line)) for line in lines]:
        typer.echo(line)


def _find_refusals_by_message(server: ServerOptions, text: str) -> list[Row]:
    """Return the latest refusal for each recorded message that the text contains, regardless of line wrapping."""
    told: list[Row] = []
    if len(text.split()) < _FEWEST_WORDS:
        return told
    with contextlib.suppress(BirthmarkError):
        told = _fetch_refusals(server, None, _MOST)
    found: dict[str, Row] = {}
    for row in correlate_refusals(told, noted(None, _MOST)):
        message = _flat(row["message"])
        if len(message.split()) >= _FEWEST_WORDS and message in _flat(text):
            found.setdefault(message, row)
    return list(found.values())


def _flat(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(".")


def _lines(refusal: Row) -> Iterator[str]:
    named = [f"{name} {value}" for name, value in refusal["facts"].items() if name in _SHOWN]
    yield f"{refusal['at'][:19]}  {refusal['code']}  {refusal['message']}"
    yield f"  Why: {refusal['cause']}"
    yield f"  Fix: {refusal['fix']}"
    yield "  " + "; ".join([f"From {refusal['address']}" if refusal["address"] else _place(refusal), *named])
    if "client" in refusal:
        yield f"  The client reported: {refusal['client']['message']} ({refusal['client']['code']})"
    yield f"  Tracking id {refusal['id']}"


def _place(refusal: Row) -> str:
    if "server" not in refusal:
        return "On the server"
    about = refusal["server"] or {}
    whom = about.get("host") or about.get("target") or about.get("data")
    return f"On this machine; server: {whom}" if whom else "On this machine; no server was involved"


def _server_of(data: Path) -> ThisServer:
    try:
        return ThisServer.of(str(data), read_endpoints(data))
    except (BirthmarkError, KeyError, TypeError):  # it does not run: use what it told this shell
        return ThisServer.of_shell(str(data), os.environ)


def _list_refusals(
    server: ServerOptions, subject: str | None, limit: int, here: list[Row], code: str | None
) -> list[Row]:
    """Return the server's refusals; without a code, also those for tracking IDs from the local log."""
    try:
        told = _fetch_refusals(server, subject, limit, code)
        known = {row["id"] for row in told}
        for row in here if code is None else ():
            if (tracking_id := row["facts"].get("tracking_id")) and tracking_id not in known:
                told += _fetch_refusals(server, tracking_id, 1)
                known.add(tracking_id)
    except (ServerNotRunningError, NoAnswerInTimeError):
        if not here:
            raise
        return []
    return told


def _fetch_refusals(server: ServerOptions, subject: str | None, limit: int, code: str | None = None) -> list[Row]:
    """Return refusals from the running server, otherwise from its database."""
    try:
        return list(server.client.rows("/refusals", subject=subject, limit=min(limit, _MOST), code=code))
    except (ServerNotRunningError, NoAnswerInTimeError):
        if server.is_elsewhere or not has_own_file(server.directory):
            raise
        return asyncio.run(_read(server.directory, subject, limit, code))


async def _read(data: Path, subject: str | None, limit: int, code: str | None) -> list[Row]:
    from birthmark.refusals import refusals_about
    from birthmark.store.schema_revision import ReadOnlySqlite

    with contextlib.closing(ReadOnlySqlite.open(data / "birthmark.db")) as database:
        return [refusal.as_json() for refusal in await refusals_about(database, subject, limit, code=code)]


async def _read_reasons(data: Path, last: timedelta) -> list[Row]:
    from birthmark.refusals.reason_counts import reasons
    from birthmark.store.schema_revision import ReadOnlySqlite

    with contextlib.closing(ReadOnlySqlite.open(data / "birthmark.db")) as database:
        return [reason.as_json() for reason in await reasons(database, SystemClock().now(), last)]
