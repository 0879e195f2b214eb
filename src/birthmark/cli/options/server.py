"""Options and helpers of commands that call a running server."""

import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from birthmark.cli.command_factory import JsonOption
from birthmark.cli.option_checks_and_confirmation import confirm
from birthmark.cli.options.row_filter import PickOptions
from birthmark.cli.output.command_output import emit, say
from birthmark.cli.output.table import table
from birthmark.operator_api.client.saved_login import signed_in
from birthmark.operator_api.client.server_discovery_and_api_client import DEFAULT_DATA, OperatorClient, client_for
from birthmark.untrusted_json_and_text import printable

if TYPE_CHECKING:
    from birthmark.pki.certificates import Certificate

DataOption = Annotated[
    Path, typer.Option("--data", envvar="BIRTHMARK_DATA", help="The server's data directory.", readable=False)
]


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Options that select a server by its data directory."""

    data: DataOption = Path(DEFAULT_DATA)

    @property
    def directory(self) -> Path:
        return self.data.expanduser()

    @property
    def client(self) -> OperatorClient:
        return client_for(self.data)

    @property
    def is_elsewhere(self) -> bool:
        """Return whether this is a remote server with a signed-in user, not a local data directory."""
        return self.data == Path(DEFAULT_DATA) and signed_in() is not None


@dataclass(frozen=True, slots=True)
class ServerOutputOptions(ServerOptions):
    """Server options of a command that prints the server's response."""

    as_json: JsonOption = False

    def do(self, *parts: str, **body: object) -> None:
        """Send a POST request and print the response."""
        emit(self.as_json, self.client.post(at(*parts), body))

    def show(self, *parts: str, columns: Sequence[str], nothing: str, **query: object) -> None:
        """Print rows from the server."""
        show(self.client.rows(at(*parts), **query), columns, as_json=self.as_json, nothing=nothing)


@dataclass(frozen=True, slots=True)
class ListOptions(ServerOutputOptions):
    """Server options of a list command."""

    pick: PickOptions = field(default_factory=PickOptions)

    def show(self, *parts: str, columns: Sequence[str], nothing: str, **query: object) -> None:
        """Print the rows that match the filter."""
        self.show_rows(self.client.rows(at(*parts), **query), columns, nothing)

    def show_rows(self, rows: Iterable[Mapping[str, Any]], columns: Sequence[str], nothing: str) -> None:
        """Print those of the given rows that match the filter."""
        nothing = "No row matches --where." if self.pick.where else nothing
        show(self.pick.filter_rows(rows), columns, as_json=self.as_json, nothing=nothing)


@dataclass(frozen=True, slots=True)
class RemoveOptions(ServerOutputOptions):
    """Server options of a command that permanently removes an object."""

    yes: Annotated[bool, typer.Option("--yes", help="Skip the confirmation prompt.")] = False

    def remove(self, *parts: str, subject: str) -> None:
        """Remove the object that the last part names, after confirmation, and report it."""
        confirm(f"Remove {printable(subject)}?", yes=self.yes)
        self.client.delete(at(*parts))
        say(self.as_json, {"removed": parts[-1]}, f"Removed {subject}.")


def presented_certificate(client: OperatorClient, thumbprint: str) -> "Certificate":
    """Return a certificate that the server recently rejected. Raise the server's error if it has none."""
    from birthmark.pki.certificates import CertificateInvalidError, parse_any, parse_thumbprint

    try:
        wanted = parse_thumbprint(thumbprint).hex()
    except CertificateInvalidError as error:
        cause = (
            f"--presented takes a certificate's SHA-256 thumbprint, 64 hex digits; this has {error.facts['detail']}."
        )
        error.quote(
            message="--presented is not a thumbprint", cause=cause, fix="`birthmark why` shows the command with it."
        )
        raise
    return parse_any(client.get(at("refusals", "certificates", wanted))["certificate"].encode())


def at(*parts: str) -> str:
    """Return a path of the operator API; a part may contain any character."""
    return "".join(f"/{_quoted(part)}" for part in parts)


def _quoted(part: str) -> str:
    """Quote a path segment, with dots escaped in `.` and `..`."""
    return part.replace(".", "%2E") if part in {".", ".."} else quote(part, safe="")


def show(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, nothing: str) -> None:
    """Print rows as a table of `columns`, or complete as JSON lines."""
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
        return
    if not (found := list(rows)):
        typer.echo(nothing, err=True)
        return
    is_terminal = sys.stdout.isatty()
    typer.echo(table(found, columns, is_terminal=is_terminal, width=shutil.get_terminal_size().columns))
