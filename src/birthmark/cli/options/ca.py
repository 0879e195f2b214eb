"""Shared options and output of the `birthmark ca` commands."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.ca import ca_directory
from birthmark.ca.hierarchy import Hierarchy
from birthmark.ca.model import IssuedCertificate
from birthmark.ca.passphrase_sources import FORMS, Passphrase, SourceInvalidError, check_source
from birthmark.ca.service import CertificateAuthority
from birthmark.cli.ca.server_managed_ca import ServerCommand
from birthmark.cli.command_factory import JsonOption
from birthmark.cli.output.command_output import certificate_row, emit, write_result
from birthmark.cli.server_backup import settings_of
from birthmark.cli.server_node import DatabaseWantedError
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.errors import BirthmarkError
from birthmark.pki.certificate_profiles import Purpose
from birthmark.pki.certificates import Certificate
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
            help=f"Source of the keys' passphrase, if not stored next to them: {FORMS}.",
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


def write_chain(chain: tuple[Certificate, ...], out: Path | None, as_json: bool) -> None:
    """Write leaf and intermediates without the root, because relying parties must already have it."""
    text = "".join(certificate.pem() for certificate in chain if not certificate.is_self_signed)
    row = certificate_row(chain[0]) | ({"file": str(out)} if out is not None else {})
    write(text, out, row, {**row, "pem": text}, as_json)


def write(
    text: str, out: Path | None, row: dict[str, Any], json_row: dict[str, Any], as_json: bool, *, keeps: bool = True
) -> None:
    """Write text to a file, or to standard output without one, and report what was written."""
    if out is not None or not as_json:
        write_result(out, text, keeps=keeps)
    if as_json or out is not None:
        emit(as_json, json_row if as_json else row)


def show_hierarchy(authority: AuthorityOptions, hierarchy: Hierarchy) -> None:
    """Print the CAs of a hierarchy, root first."""
    there = {Purpose.ROOT: hierarchy.anchor} | {purpose: one.certificate for purpose, one in hierarchy.issuers.items()}
    for purpose, certificate in there.items():
        file = str(authority.directory / f"{purpose}.pem")
        emit(authority.as_json, {"ca": str(purpose), **certificate_row(certificate), "file": file})


def issued_row(certificate: IssuedCertificate) -> dict[str, Any]:
    """Return the output row of an inventory certificate."""
    return {
        "device_id": certificate.device_id,
        **certificate_row(certificate.certificate),
        "profile": certificate.profile,
        "revoked_at": certificate.revoked_at.isoformat() if certificate.revoked_at else None,
        "revocation_reason": certificate.revocation_reason.value if certificate.revocation_reason else None,
    }


def file_name(name: str) -> str:
    """Return a name as part of a file's name."""
    return "".join(char if char.isalnum() or char in "-_." else "_" for char in name).lstrip(".") or "_"
