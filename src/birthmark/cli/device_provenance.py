"""`birthmark device provenance`: origin of a device, link by link, with the evidence for each."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from birthmark.cli.command_factory import JsonOption
from birthmark.cli.manifest import ManifestOptions, entries_of
from birthmark.cli.manifest_merge import StationsOptions
from birthmark.cli.options.server import ServerOptions
from birthmark.cli.output.command_output import SOME_ROWS_REFUSED, say
from birthmark.cli.server_audit import verify_audit_chains
from birthmark.errors import NotFoundError
from birthmark.fleet.provenance_chain import ProvenanceLink, ProvenanceState, is_about, links_of_list, links_of_server
from birthmark.manifests.errors import ManifestError
from birthmark.manifests.manifest_entry import ManifestEntry
from birthmark.operator_api.client.server_discovery_and_api_client import NoAnswerInTimeError, ServerNotRunningError
from birthmark.untrusted_json_and_text import printable

_COLORS = {ProvenanceState.HOLDS: typer.colors.GREEN, ProvenanceState.BROKEN: typer.colors.RED}


class NothingKnownError(NotFoundError):
    """The device is unknown."""

    code = "provenance.nothing_known"
    cause = "Neither a manifest nor the server with the data directory {data} has a record of '{name}'{refused}."
    fix = (
        "To list the server's devices: `birthmark device ls --data {data}`. Pass a manifest with --manifest FILE, "
        "and specify its trusted signers with --station, --signer or --trust-root."
    )
    data: Path
    name: str
    refused: str = ""
    """Entries of the list that were not verified, which may include the requested device."""


@dataclass(frozen=True, slots=True)
class ProvenanceListOptions:
    """Manifest of the device, and its trusted signers."""

    stations: StationsOptions
    manifest: Annotated[
        Path | None, typer.Option(help="The supplier's manifest, or the production line's intake bundle.")
    ] = None
    signer: Annotated[list[Path] | None, typer.Option(help="Accepted signer certificate of a manifest.")] = None

    def found(self, identifier: str) -> tuple[list[Any], str]:
        """Return the entries for the device with their errors, and the first error of the other entries."""
        about: list[Any] = []
        if self.manifest is None:
            return about, ""
        trust, wrong = ManifestOptions(self.manifest, self.signer, self.stations).trust(), ""
        for one in entries_of(self.manifest, trust, quiet=True):
            if is_about(one, identifier):
                about.append(one)
            elif isinstance(one, ManifestError) and not wrong:
                wrong = f"; of the list not all is believed: {one.explain_cause().rstrip('.')}"
        return about, wrong


def verify(
    given: ProvenanceListOptions,
    server: ServerOptions,
    name: Annotated[str, typer.Argument(help="Device ID, serial number of the chip or board, or thumbprint.")],
    as_json: JsonOption = False,
) -> None:
    """Trace a device from its manifest to its certificate.

    Prints how each link was verified, up to the latest certificate.

    Exits with code 7 if a link is broken, or 3 if no records exist. Without a running server, its records are omitted.
    """
    found, refused = given.found(name)
    links = [] if given.manifest is None else links_of_list(found)
    entry = next((one for one in found if isinstance(one, ManifestEntry)), None)
    device = name if entry is None else entry.device_id
    factory = None if entry is None or entry.thumbprint is None else entry.thumbprint.hex()
    try:
        links += links_of_server(device, factory, *_records(server, device))
    except (ServerNotRunningError, NoAnswerInTimeError) as away:
        links.append(
            ProvenanceLink("registration", ProvenanceState.NOT_CHECKED, away.explain_cause().rstrip("."), "nobody")
        )
    if all(link.state in {ProvenanceState.MISSING, ProvenanceState.NOT_CHECKED} for link in links):
        raise NothingKnownError(name=name, data=server.directory, refused=refused)
    for link in links:
        _tell(link, as_json=as_json)
    if any(link.state in {ProvenanceState.BROKEN, ProvenanceState.MISSING} for link in links):
        raise typer.Exit(SOME_ROWS_REFUSED)


def _records(server: ServerOptions, device: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the device's rows of the verified audit chains, and its certificates in the inventory."""
    certificates = list(server.client.rows("/certificates", subject=device))
    rows: list[dict[str, Any]] = []

    def keep(line: str) -> None:
        with suppress(KeyError):
            row = json.loads(line)
            if row["subject"].lower() == device.lower():
                rows.append(row)

    verify_audit_chains(server, [], rows=keep)
    return rows, certificates


def _tell(link: ProvenanceLink, *, as_json: bool) -> None:
    if as_json:
        say(as_json, asdict(link), "")
        return
    state = typer.style(
        f"{link.state.value:<11}", fg=_COLORS.get(link.state), bold=link.state is ProvenanceState.BROKEN
    )
    typer.echo(f"{link.link:<12} {state} " + printable(link.what))
    typer.echo(f"{'':<24} by " + printable(link.by))
