"""Shared options and output of the `birthmark ca` commands."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.ca import ca_directory
from birthmark.ca.hierarchy import Hierarchy
from birthmark.ca.passphrase_sources import FORMS, Passphrase, SourceInvalidError, check_source
from birthmark.ca.service import CertificateAuthority
from birthmark.cli.ca.server_managed_ca import ServerCommand
from birthmark.cli.command_factory import JsonOption
from birthmark.cli.server_backup import settings_of
from birthmark.cli.server_node import DatabaseWantedError
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.errors import BirthmarkError
from birthmark.store import open_database

if TYPE_CHECKING:
    from birthmark.store import Database

_NOT_ASKED = (
    "Warning: this machine is one of several cluster nodes, and the leader is unknown: {reason} If another node "
    "leads, the next start moves the files changed here to .NAME.left. To show the leader, run on a running "
    "server: `birthmark server node ls`."
)


def check_leads(directory: Path) -> None:
    """Raise `MachineElsewhereError` if another node is the leader; warn if the database is unavailable."""
    from birthmark.server.cluster.node_identity_and_invitation import machine_of

    if machine_of(data := directory.resolve().parent) is not None:
        asyncio.run(_check_leads(data))


async def _check_leads(data: Path) -> None:
    from birthmark.server.cluster.file_sync import FileSync

    try:
        database = await _opened(data)
    except BirthmarkError as error:
        typer.echo(_NOT_ASKED.format(reason=error.explain_cause()), err=True)
        return
    try:
        await FileSync(database, data, SystemClock(), SystemEntropy()).check_is_leader()
    finally:
        await database.close()


async def _opened(data: Path) -> "Database":
    from birthmark.store import open_database

    url = settings_of(None, data, None).database_url
    if url.startswith("sqlite:"):  # the records' location is unknown
        raise DatabaseWantedError
    return await open_database(url, SystemClock(), worker="asks")


OPERATOR = Principal(PrincipalKind.OPERATOR, "cli")
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Output file; an existing file is kept. Default: standard output.")
]


def parse_source(text: str) -> str:
    """Validate a passphrase source."""
    try:
        return check_source(text)
    except SourceInvalidError as error:
        raise typer.BadParameter(str(error)) from error


@dataclass(frozen=True, slots=True)
class AuthorityOptions:
    """CA directory and output format."""

    directory: Annotated[
        Path, typer.Option("--dir", envvar="BIRTHMARK_CA_DIR", help="Directory of the CA.", file_okay=False)
    ] = Path("ca")
    source: Annotated[
        str | None,
        typer.Option(
            "--passphrase",
            envvar="BIRTHMARK_CA_PASSPHRASE",
            parser=parse_source,
            metavar="SOURCE",
            help=f"Where to read the passphrase of the keys, if it is not stored with them: {FORMS}.",
        ),
    ] = None
    as_json: JsonOption = False

    @property
    def passphrase(self) -> Passphrase:
        return _passphrase(self.directory, self.source)

    def load(self) -> Hierarchy:
        """Load the CA from its directory."""
        return ca_directory.load(self.directory, self.passphrase)


@lru_cache
def _passphrase(directory: Path, source: str | None) -> Passphrase:
    """Return the cached passphrase of a directory, so that the user is prompted once."""
    return Passphrase(directory, source)


@asynccontextmanager
async def opened(authority: AuthorityOptions, instead: ServerCommand) -> AsyncIterator[CertificateAuthority]:
    """Open the CA of a directory. Raise `ServersCaError` for a server's CA, with the command `instead`."""
    instead.check(authority.directory)
    from birthmark.cli.app import taking_packages  # it has the tree with this module

    clock = SystemClock()
    made = authority.load()
    record = authority.directory / "inventory.db"
    with taking_packages(f"To bring {record} up to this version"):
        database = await open_database(f"sqlite:///{record}", clock)
    try:
        yield CertificateAuthority(made, database, clock, SystemEntropy())
    finally:
        await database.close()
