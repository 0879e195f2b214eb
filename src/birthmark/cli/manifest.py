"""`birthmark manifest`: supplier manifests of secure elements."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, wrap_file

from birthmark import atomic_files
from birthmark.cli.command_factory import JsonOption
from birthmark.cli.input_files import open_file, read_device_certificate, read_file
from birthmark.cli.manifest_merge import StationsOptions, is_bundle
from birthmark.cli.option_checks_and_confirmation import OptionNotApplicableError, only
from birthmark.cli.options.server import show
from birthmark.cli.output.bulk_summary import Refusals
from birthmark.cli.output.command_output import (
    SOME_ROWS_REFUSED,
    FileExistsAlreadyError,
    again,
    say,
    typed_command_with,
)
from birthmark.cli.output.table import format_count
from birthmark.clock_and_entropy import SystemClock
from birthmark.errors import BirthmarkError
from birthmark.untrusted_json_and_text import printable

_NOT_IN_NAMES = re.compile(r"^\.|[^A-Za-z0-9._:@+-]")
_MAX_NAME_CHARS = 200
_LOOKED_AT = 512
_LEFT_OUT_SHOWN, _LEFT_OUT_LISTED = 5, 1000
_COLUMNS = ("device", "part", "provisioned", "signer", "thumbprint", "unchecked")
_COLUMNS_OF_BUNDLES = ("board", "device", "operator", "signer", "provisioned", "root", "thumbprint")


@dataclass(frozen=True, slots=True)
class ManifestOptions:
    """Manifest and its trusted signers."""

    file: Annotated[
        Path,
        typer.Argument(
            help="The manifest as delivered (JSON), an intake bundle, or certificates: a directory, ZIP or CSV."
        ),
    ]
    signer: Annotated[list[Path] | None, typer.Option(help="Accepted signer certificate; may be repeated.")] = None
    stations: StationsOptions = field(default_factory=StationsOptions)
    as_json: JsonOption = False

    def trust(self) -> Any:
        """Return the trusted signers: the given files, or Microchip's by default."""
        from birthmark.manifests.certificate_lists import ListTrust, find_manifest
        from birthmark.manifests.errors import ListUnsignedError

        if is_listed(self.file):
            tell_left_out(self.file, as_json=self.as_json)
            whose = {"signer": self.signer, "station": self.stations.station}
            found = find_manifest(self.file) if any(whose.values()) else None
            what = "this one is not signed" if found is None else f"{found[1].name} in {self.file} may be one"
            try:
                only(False, f"to a signed list, but {what}", **whose)
            except OptionNotApplicableError as error:
                if found is not None:
                    error.quote(fix=f"Name that: `{found[0]}{typed_command_with(self.file, found[1])}`")
                raise
            if not (roots := tuple(self.stations.roots())):
                raise ListUnsignedError(file=str(self.file), again=again())
            return ListTrust(roots)
        if is_bundle(self.file):
            only(False, "to a supplier's manifest; for an intake bundle, use --station", signer=self.signer)
            return self.stations.trust()
        from birthmark.manifests.microchip_trust_anchors import MICROCHIP_ROOTS, MICROCHIP_SIGNERS
        from birthmark.manifests.microchip_verifier import root_of, signer_of, trust_of

        only(False, "to an intake bundle, not to this file", station=self.stations.station)
        own_signers = [signer_of(read_device_certificate(path)) for path in self.signer or ()]
        own_roots = [root_of(root) for root in self.stations.roots()]
        return trust_of(own_signers or MICROCHIP_SIGNERS.values(), own_roots or MICROCHIP_ROOTS)

    def verified(self, refused: Refusals) -> Iterator[Any]:
        """Yield the verified entries; print the others, and add them to `refused`."""
        try:
            for place, entry in enumerate(entries_of(self.file, self.trust(), quiet=self.as_json), 1):
                if not isinstance(entry, BirthmarkError):
                    yield entry
                    continue
                refused.add(entry, {"entry": place})
        finally:
            refused.print_remaining()


def is_listed(file: Path) -> bool:
    """Return whether this is an unsigned list of certificates: a directory, a ZIP, a table."""
    from birthmark.manifests.certificate_lists import is_list

    if file.is_dir():
        return True
    with open_file(file) as raw:
        return is_list(file, raw.read(_LOOKED_AT))


def tell_left_out(file: Path, *, as_json: bool) -> None:
    """Print the files of a directory or ZIP that are ignored, so that a partial list is noticed."""
    from birthmark.manifests.certificate_lists import find_skipped_files

    if not (names := find_skipped_files(file)):
        return
    if as_json:
        typer.echo(json.dumps({"left_out": len(names), "files": names[:_LEFT_OUT_LISTED]}))
        return
    more = f" and {len(names) - _LEFT_OUT_SHOWN} more" if len(names) > _LEFT_OUT_SHOWN else ""
    said = f"{format_count(len(names), 'file')} not looked at: {', '.join(names[:_LEFT_OUT_SHOWN])}{more}."
    typer.echo(printable(f"{said} Certificate files end in .pem, .crt, .cer, .cert or .der."), err=True)


def entries_of(file: Path, trust: Any, judge: Any = None, *, quiet: bool) -> Iterator[Any]:
    """Yield verified entries and errors, with a progress bar; with `judge`, entries include their warnings."""
    from birthmark.manifests.bundle import parallel_verifier
    from birthmark.manifests.bundle.accepted_stations_and_roots import BundleTrust
    from birthmark.manifests.certificate_lists import ListTrust, verify_list
    from birthmark.manifests.manifest_entry import add_doubts
    from birthmark.manifests.parallel_verification import verify_all

    if isinstance(trust, ListTrust):
        yield from (add_doubts(one, judge) for one in verify_list(file, trust, SystemClock().now()))
        return
    with ExitStack() as stack:
        raw: BinaryIO = stack.enter_context(open_file(file))
        console = Console(stderr=True)
        if not quiet and console.is_terminal:
            size = file.stat().st_size
            bar = wrap_file(raw, size, description="Verifying", console=console, transient=True)
            raw = stack.enter_context(bar)
        if isinstance(trust, BundleTrust):
            yield from parallel_verifier.verify_all(raw, trust, judge)
        else:
            yield from verify_all(raw, trust, judge)


def count_entries(file: Path) -> int:
    """Return the number of entries, valid or not; nothing is verified."""
    from birthmark.manifests.bundle.verifier import count_chips
    from birthmark.manifests.certificate_lists import count_listed
    from birthmark.manifests.manifest_chunks import count_of

    if is_listed(file):
        return count_listed(file)
    with open_file(file) as raw:
        return count_chips(raw) if is_bundle(file) else count_of(raw)


def verify(shipped: ManifestOptions) -> None:
    """Verify every entry of a manifest.

    Checks signature, signer, header, duplicates, certificate name, key and chain.

    An entry without a certificate is reported as partially verified.
    """
    refused = Refusals(shipped.as_json)
    good, partly, unrooted, parts = 0, 0, 0, set()
    for entry in shipped.verified(refused):
        good += entry.unchecked is None
        partly += entry.unchecked is not None
        unrooted += entry.intake is not None and entry.intake.checked_now is None
        parts.add(entry.part_number)
        if shipped.as_json:
            typer.echo(json.dumps(_row(entry)))
    of = f" ({', '.join(sorted(parts))})" if parts else ""
    hint = "" if good or partly or refused.count else " Nothing is on this list."
    typer.echo(f"{format_count(good, 'entry')} verified, {refused.count} refused{of}.{hint}", err=True)
    if partly:
        typer.echo(
            f"For {partly} more, only signature, signer and header were verified: without a certificate, they "
            "have no name, key or chain. This manifest cannot enroll them.",
            err=True,
        )
    if unrooted:
        entries = format_count(unrooted, "entry")
        typer.echo(
            f"The manufacturer's chain of {entries} was not verified. Set its root: --trust-root FILE.", err=True
        )
    if refused.count or partly or not good:
        raise typer.Exit(SOME_ROWS_REFUSED)


def show_all(shipped: ManifestOptions) -> None:
    """List a manifest's chips with their verification results."""
    refused = Refusals(shipped.as_json)
    rows = [_row(entry) for entry in shipped.verified(refused)]
    columns = _COLUMNS_OF_BUNDLES if is_bundle(shipped.file) else _COLUMNS
    show(rows, columns, as_json=shipped.as_json, nothing="No entry could be verified.")
    if refused.count:
        raise typer.Exit(SOME_ROWS_REFUSED)


class FileNames(StrEnum):
    """Name scheme of device files."""

    CN = "cn"
    UNIQUE_ID = "unique-id"


def extract(
    shipped: ManifestOptions,
    out: Annotated[Path, typer.Option("--out", "-o", file_okay=False, help="Output directory for NAME.pem files.")],
    chain: Annotated[bool, typer.Option("--chain", help="Append the signer certificate to each file.")] = False,
    named_by: Annotated[
        FileNames, typer.Option(help="File names: the certificate's common name, or the serial number of the chip.")
    ] = FileNames.CN,
) -> None:
    """Write each verified device certificate to a PEM file.

    The file is named after the common name or the chip.

    Characters that file names cannot contain are replaced, and duplicate names are numbered.
    """
    refused = Refusals(shipped.as_json)
    written, without, kept, names = 0, 0, 0, set[str]()
    out.mkdir(parents=True, exist_ok=True)
    for entry in shipped.verified(refused):
        try:
            certificate = entry.certificate
        except BirthmarkError as error:  # validly signed, but unreadable content
            refused.add(error, {"device": entry.device_id})
            continue
        if certificate is None:
            without += 1
            continue
        wanted = entry.device_id if named_by is FileNames.CN else entry.unique_id
        path = out / f"{_file_name(wanted, names)}.pem"
        above = entry.issuer.pem() if chain and entry.issuer_der is not None else ""
        content = (certificate.pem() + above).encode()
        if path.is_symlink() or not path.is_file() or path.read_bytes() != content:
            kept += atomic_files.link_backup(path) is not None
            atomic_files.put(path, content)
        written += 1
        if shipped.as_json:
            typer.echo(json.dumps(_row(entry) | {"file": str(path)}))
    if kept:
        typer.echo(f"{format_count(kept, 'earlier file')} kept as NAME.pem.old.", err=True)
    certificates, entries = format_count(written, "certificate"), format_count(refused.count, "entry")
    typer.echo(f"{certificates} written to {out}, {entries} refused, {without} without one.", err=True)
    if refused.count:
        raise typer.Exit(SOME_ROWS_REFUSED)


def create(
    out: Annotated[Path, typer.Option("--out", "-o", file_okay=False, help="Output directory.")],
    count: Annotated[int, typer.Option(min=1, max=1_000_000, help="Number of chips.")] = 50,
    chip_ca: Annotated[
        Path | None,
        typer.Option(help="Use the connected secure element as the first chip; PEM file of its manufacturer's CAs."),
    ] = None,
    bundle: Annotated[
        bool, typer.Option("--bundle", help="Create an intake bundle of a production-line station.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Create a test manifest with its signer and roots.

    Uses the supplier's format, for tests and rehearsals.

    Writes manifest.json, signer.pem and root.pem; with --bundle, root.pem and a station's directory. The connected
    secure element is the one that `birthmark chip` uses.
    """
    from birthmark.clock_and_entropy import SystemClock, SystemEntropy
    from birthmark.fleet.sample_shipment import make_bundle, make_rehearsal
    from birthmark.pki.certificates import parse_bundle

    only(not bundle, "to a supplier's manifest, not to --bundle", chip_ca=chip_ca)
    for name in ("manifest.json", "signer.pem", "root.pem", "station"):
        if os.path.lexists(out / name):
            raise FileExistsAlreadyError(path=out)
    first = None if chip_ca is None else _chip_at_hand()
    roots = () if chip_ca is None else [c for c in parse_bundle(read_file(chip_ca)) if c.is_self_signed]
    console = Console(stderr=True)
    hidden = as_json or not console.is_terminal
    columns = SpinnerColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=console, transient=True, disable=hidden) as spinner:
        spinner.add_task(f"Making {count} chips")
        if bundle:
            made = make_bundle(out, count, SystemClock(), SystemEntropy())
        else:
            made = make_rehearsal(out, count, SystemClock(), SystemEntropy(), first=first, first_roots=roots)
    entries = format_count(made["entries"], "entry")
    if bundle:
        say(as_json, made, f"{entries} in {made['bundle']}; station {made['station']}, roots {made['root']}.")
        return
    say(as_json, made, f"{entries} in {made['manifest']}; signer {made['signer']}, roots {made['root']}.")


def _chip_at_hand() -> Any:
    """Return the secure element that the environment selects, as a manifest describes it."""
    from cryptography.hazmat.primitives.asymmetric import ec

    from birthmark.cli.options.chip_and_pin import ChipOptions
    from birthmark.manifests.errors import NameMismatchError
    from birthmark.manifests.writer import ManifestChip

    with ChipOptions.from_environment().open() as element:
        device, *issuers = element.chain()
        key = device.public_key()
    name = device.subject_cn or ""
    if not name.lower().startswith("sn") or not isinstance(key, ec.EllipticCurvePublicKey) or not issuers:
        raise NameMismatchError(place=1, common_name=name, unique_id="a Trust&GO chip")
    return ManifestChip(name[2:].lower(), [key], (device, issuers[0]))


def _file_name(device_id: str, taken: set[str]) -> str:
    """Return a safe and unique file name for a device ID, which the manufacturer of the secure element chose."""
    name = _NOT_IN_NAMES.sub("_", device_id)[:_MAX_NAME_CHARS]
    found, number = name, 1
    while found.casefold() in taken:
        number += 1
        found = f"{name}-{number}"
    taken.add(found.casefold())
    return found


def _row(entry: Any) -> dict[str, Any]:
    row = {
        "device": entry.device_id,
        "unique_id": entry.unique_id,
        "part": entry.part_number,
        "provisioned": entry.provisioned_at.isoformat(),
        "signer": entry.signer,
        "thumbprint": entry.thumbprint.hex() if entry.thumbprint else None,
        "unchecked": entry.unchecked,
    }
    if entry.intake is None:
        return row
    at = {"bundle": entry.intake.place.bundle, "seq": entry.intake.place.seq}
    checked = {"root": entry.intake.checked_now, "root_then": entry.intake.checked_then}
    return row | {"board": entry.intake.board, "operator": entry.intake.operator} | checked | at
