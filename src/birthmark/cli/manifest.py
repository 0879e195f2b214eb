"""`birthmark manifest`: supplier manifests of secure elements."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, wrap_file

from birthmark.cli.common import (
    SOME_ROWS_REFUSED,
    FileExistsAlreadyError,
    about,
    again,
    open_file,
    read_certificate,
    read_file,
    telling_refusals,
)
from birthmark.cli.journal import note
from birthmark.cli.operator import JsonOption
from birthmark.cli.printable import counted
from birthmark.errors import BirthmarkError
from birthmark.text import printable

app = typer.Typer(
    help="Supplier manifests: verify, extract certificates.",
    epilog="Example: birthmark manifest verify shipment.json",
    no_args_is_help=True,
)

ManifestFile = Annotated[Path, typer.Argument(help="The manifest as delivered (JSON).")]
SignerOption = Annotated[
    list[Path] | None,
    typer.Option("--signer", help="A signer certificate to accept; may be given again."),
]
RootOption = Annotated[
    list[Path] | None,
    typer.Option("--root", help="Roots of device certificates to accept, PEM."),
]


def open_trust(signers: list[Path] | None, roots: list[Path] | None) -> Any:
    """Return whose manifests are believed: the files given, and without any, Microchip's own."""
    from birthmark.manifests.anchors import MICROCHIP_ROOTS, MICROCHIP_SIGNERS
    from birthmark.manifests.microchip import root_of, signer_of, trust_of
    from birthmark.pki.certificates import parse_bundle

    own_signers = [signer_of(read_certificate(path)) for path in signers or ()]
    own_roots = []
    for path in roots or ():
        with about(path):
            own_roots += [root_of(root) for root in parse_bundle(read_file(path))]
    return trust_of(own_signers or MICROCHIP_SIGNERS.values(), own_roots or MICROCHIP_ROOTS)


def entries_of(file: Path, trust: Any, *, quiet: bool) -> Iterator[Any]:
    """Yield verified entries and refusals, with a progress bar for people."""
    from birthmark.manifests.microchip import verify_all

    with ExitStack() as stack:
        raw: BinaryIO = stack.enter_context(open_file(file))
        console = Console(stderr=True)
        if not quiet and console.is_terminal:
            size = file.stat().st_size
            bar = wrap_file(raw, size, description="Verifying", console=console, transient=True)
            raw = stack.enter_context(bar)
        yield from verify_all(raw, trust)


def count_entries(file: Path) -> int:
    """Return how many entries there are, good or not; nothing is verified."""
    from birthmark.manifests.microchip import raw_entries

    with open_file(file) as raw:
        return sum(1 for _ in raw_entries(raw))


@app.command()
def verify(
    file: ManifestFile, signer: SignerOption = None, root: RootOption = None, as_json: JsonOption = False
) -> None:
    """Check every entry: signature, signer, header, duplicates, certificate name, key and chain.

    An entry without a certificate can be checked only in part, and counts as such.

    Example: birthmark manifest verify shipment.json
    """
    good, partly, bad, parts = 0, 0, 0, set()
    with telling_refusals(as_json=as_json):
        for place, entry in enumerate(entries_of(file, open_trust(signer, root), quiet=as_json), 1):
            if isinstance(entry, BirthmarkError):
                bad += 1
                _show_refusal(place, entry, as_json=as_json)
                continue
            good += entry.unchecked is None
            partly += entry.unchecked is not None
            parts.add(entry.part_number)
            if as_json:
                typer.echo(json.dumps(_row(entry)))
    typer.echo(f"{counted(good, 'entry')} verified, {bad} refused ({', '.join(sorted(parts)) or 'no part'}).", err=True)
    if partly:
        typer.echo(
            f"Of {partly} more only signature, signer and header were checked: without a certificate there is no name, "
            "key or chain. They cannot be enrolled by this manifest.",
            err=True,
        )
    if bad or partly or not good:
        raise typer.Exit(SOME_ROWS_REFUSED)


@app.command()
def show(file: ManifestFile, signer: SignerOption = None, root: RootOption = None, as_json: JsonOption = False) -> None:
    """List the chips of a manifest with what was verified of each.

    Example: birthmark manifest show shipment.json
    """
    from birthmark.cli.operator import show as show_rows

    with telling_refusals(as_json=as_json):
        rows, bad = [], 0
        for place, entry in enumerate(entries_of(file, open_trust(signer, root), quiet=as_json), 1):
            if isinstance(entry, BirthmarkError):
                bad += 1
                _show_refusal(place, entry, as_json=as_json)
            else:
                rows.append(_row(entry))
        columns = ("device", "part", "provisioned", "signer", "thumbprint", "unchecked")
        show_rows(rows, columns, as_json=as_json, nothing="No entry could be verified.")
    if bad:
        raise typer.Exit(SOME_ROWS_REFUSED)


@app.command()
def extract(
    file: ManifestFile,
    out: Annotated[Path, typer.Option("--out", "-o", file_okay=False, help="Directory for NAME.pem files.")],
    signer: SignerOption = None,
    root: RootOption = None,
    chain: Annotated[bool, typer.Option("--chain", help="Append the signer certificate to each file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write each verified device certificate to a PEM file of its own, named by its common name.

    Example: birthmark manifest extract shipment.json --out certificates/
    """
    written, bad, without = 0, 0, 0
    with telling_refusals(as_json=as_json):
        out.mkdir(parents=True, exist_ok=True)
        for place, entry in enumerate(entries_of(file, open_trust(signer, root), quiet=as_json), 1):
            if isinstance(entry, BirthmarkError):
                bad += 1
                _show_refusal(place, entry, as_json=as_json)
                continue
            if entry.certificate is None:
                without += 1
                continue
            path = out / f"{entry.device_id}.pem"
            path.write_text(entry.certificate.pem() + (entry.issuer.pem() if chain else ""), encoding="ascii")
            written += 1
            if as_json:
                typer.echo(json.dumps(_row(entry) | {"file": str(path)}))
    told = (
        f"{counted(written, 'certificate')} written to {out}, {counted(bad, 'entry')} refused, {without} without one."
    )
    typer.echo(told, err=True)
    if bad:
        raise typer.Exit(SOME_ROWS_REFUSED)


@app.command()
def create(
    out: Annotated[Path, typer.Option("--out", "-o", file_okay=False, help="Directory for what is made.")],
    count: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many chips.")] = 50,
    element_ca: Annotated[
        Path | None,
        typer.Option(help="Make the element at hand the first chip; its maker's CAs, PEM."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a manifest in the supplier's format, with its signer and roots, for tests and rehearsals.

    Writes manifest.json, signer.pem and root.pem. The element at hand is the one that `birthmark element` sees.

    Example: birthmark manifest create --out rehearsal --count 50
    """
    from birthmark.clock import SystemClock, SystemEntropy
    from birthmark.fleet.rehearsal import make_rehearsal
    from birthmark.pki.certificates import parse_bundle

    with telling_refusals(as_json=as_json):
        for name in ("manifest.json", "signer.pem", "root.pem"):
            if (out / name).exists():
                raise FileExistsAlreadyError(path=out)
        first = None if element_ca is None else _chip_at_hand()
        roots = () if element_ca is None else [c for c in parse_bundle(read_file(element_ca)) if c.is_self_signed]
        console = Console(stderr=True)
        hidden = as_json or not console.is_terminal
        spinner = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), console=console, transient=True, disable=hidden
        )
        with spinner:
            spinner.add_task(f"Making {count} chips")
            made = make_rehearsal(out, count, SystemClock(), SystemEntropy(), first=first, first_roots=roots)
    if as_json:
        typer.echo(json.dumps(made))
    else:
        typer.echo(
            f"{counted(made['entries'], 'entry')} in {made['manifest']}; signer {made['signer']}, roots {made['root']}."
        )


def _chip_at_hand() -> Any:
    """Return the element that the environment names, as a manifest describes it."""
    from cryptography.hazmat.primitives.asymmetric import ec

    from birthmark.cli.chip import ChipOptions
    from birthmark.manifests.errors import NameMismatchError
    from birthmark.manifests.writer import Chip

    with ChipOptions.at_hand().open() as element:
        device, issuer = element.chain()[:2]
        key = device.public_key()
    name = device.subject_cn or ""
    if not name.lower().startswith("sn") or not isinstance(key, ec.EllipticCurvePublicKey):
        raise NameMismatchError(place=1, common_name=name, unique_id="a Trust&GO chip")
    return Chip(name[2:].lower(), [key], (device, issuer))


def _row(entry: Any) -> dict[str, Any]:
    return {
        "device": entry.device_id,
        "unique_id": entry.unique_id,
        "part": entry.part_number,
        "provisioned": entry.provisioned_at.isoformat(),
        "signer": entry.signer,
        "thumbprint": entry.certificate.thumbprint.hex() if entry.certificate else None,
        "unchecked": entry.unchecked,
    }


def _show_refusal(place: int, error: BirthmarkError, *, as_json: bool) -> None:
    error.add_facts(again=again())
    note(error)
    if as_json:
        typer.echo(json.dumps({"entry": place, "error": error.code, "cause": error.explain_cause()}))
    else:
        typer.echo(printable(f"Refused {error.code}: {error.explain_cause()}"), err=True)
        typer.echo(printable(f"  Fix: {error.explain_fix()}"), err=True)
