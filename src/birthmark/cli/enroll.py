"""`birthmark enroll`: put devices on record, at Azure, AWS or a Birthmark server by the same commands."""

import hashlib
import json
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from birthmark.cli.common import (
    ACTION_NEEDED,
    SOME_ROWS_REFUSED,
    UsageError,
    emit,
    read_certificate,
    refusals_shown,
)
from birthmark.cli.manifest import ManifestFile, RootOption, SignerOption, entries_of, open_trust
from birthmark.cli.operator import DEFAULT_DATA, DataOption, JsonOption, show
from birthmark.errors import BirthmarkError, InvalidRequestError

app = typer.Typer(
    help="Put devices on record: one, a CA's, a shipment.",
    epilog="Example: birthmark enroll device --cert device.pem",
    no_args_is_help=True,
)


class CertificateNotNamedError(UsageError):
    """Nothing to enroll by."""

    code = "enroll.certificate_not_named"
    cause = "A device is put on record by its certificate, and none was named."
    fix = "Give --cert FILE; `birthmark element cert --out FILE` reads it from the chip."


class DeviceNotNamedError(UsageError):
    """A certificate without a common name, and no device id."""

    code = "enroll.device_not_named"
    cause = "The certificate has no common name, which would be the device id."
    fix = "Name the device: `birthmark enroll device DEVICE_ID --cert FILE`."


class CaNotNamedError(UsageError):
    """A group needs one CA."""

    code = "enroll.ca_not_named"
    cause = "A group is put on record by one CA: the name of one on record, or its certificate."
    fix = "Give either --ca-name NAME (see `birthmark dps ca list`) or --cert FILE."


class GroupCertificateError(InvalidRequestError):
    """A device's certificate where a CA's belongs."""

    code = "enroll.not_a_ca"
    cause = "'{subject}' is not a CA: no device's certificate can be issued by it."
    fix = "Give the certificate of the CA that issued the devices', or use `birthmark enroll device` for this one."


class Cloud(StrEnum):
    """Where enrollments go."""

    AZURE = "azure"
    AWS = "aws"


ToOption = Annotated[Cloud, typer.Option("--to", help="Which cloud's interface.")]
ProfileOption = Annotated[
    str, typer.Option("--profile", help="local (a Birthmark server), cloud (the vendor's own), or a named one.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask before writing to another profile than local.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, change nothing.")]
UpdateOption = Annotated[bool, typer.Option("--update", help="Replace what is on record with another certificate.")]
EdgeOption = Annotated[bool, typer.Option("--edge", help="Make it an IoT Edge device (Azure).")]
PolicyOption = Annotated[str | None, typer.Option("--policy", help="Policy to attach (AWS).")]


@app.command()
def device(
    device_id: Annotated[str | None, typer.Argument(help="Default: the certificate's common name.")] = None,
    cert: Annotated[Path | None, typer.Option(help="The device's certificate, PEM or DER.")] = None,
    edge: EdgeOption = False,
    policy: PolicyOption = None,
    to: ToOption = Cloud.AZURE,
    profile: ProfileOption = "local",
    update: UpdateOption = False,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    data: DataOption = Path(DEFAULT_DATA),
    as_json: JsonOption = False,
) -> None:
    """Put one device on record by its certificate.

    Example: birthmark enroll device --cert se050.pem --edge
    """
    from birthmark.fleet.target import DeviceWish

    with refusals_shown(as_json=as_json):
        if cert is None:
            raise CertificateNotNamedError("No certificate was named.")
        certificate = read_certificate(cert)
        name = device_id or certificate.subject_cn
        if not name:
            raise DeviceNotNamedError("The device has no name.")
        target = _target(to, profile, data)
        _confirm(target, profile, 1, yes=yes or dry_run)
        wish = DeviceWish(name, certificate, is_edge=edge, policy=policy)
        done = target.enroll(wish, update=update, dry_run=dry_run)
        row = {"device": name, "thumbprint": certificate.thumbprint.hex(), "outcome": done.value}
        emit(as_json, row if as_json else row | {"at": target.description})


@app.command()
def group(
    group_id: Annotated[str, typer.Argument(help="Name of the group: letters, digits and - . _ :")],
    ca_name: Annotated[str | None, typer.Option(help="Name of a CA certificate on record.")] = None,
    cert: Annotated[Path | None, typer.Option(help="The CA's certificate, PEM or DER.")] = None,
    edge: EdgeOption = False,
    profile: ProfileOption = "local",
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    data: DataOption = Path(DEFAULT_DATA),
    as_json: JsonOption = False,
) -> None:
    """Put a group on record: every device whose certificate the CA issued (Azure).

    Example: birthmark enroll group my-devices --ca-name my-ca
    """
    from birthmark.fleet.azure import AzureTarget
    from birthmark.fleet.profiles import azure_profile

    with refusals_shown(as_json=as_json):
        if (ca_name is None) == (cert is None):
            raise CaNotNamedError("The group's CA was not named.")
        certificate = None if cert is None else read_certificate(cert)
        if certificate is not None and not certificate.is_ca:
            raise GroupCertificateError(f"{cert}: not a CA's certificate.", subject=certificate.subject_text)
        target = AzureTarget(azure_profile(profile, data))
        _confirm(target, profile, 1, yes=yes or dry_run)
        done = target.enroll_group(group_id, ca_name=ca_name, certificate=certificate, is_edge=edge, dry_run=dry_run)
        emit(as_json, {"group": group_id, "outcome": done.value})


@app.command()
def manifest(
    file: ManifestFile,
    signer: SignerOption = None,
    root: RootOption = None,
    edge: EdgeOption = False,
    policy: PolicyOption = None,
    to: ToOption = Cloud.AZURE,
    profile: ProfileOption = "local",
    update: UpdateOption = False,
    journal: Annotated[Path | None, typer.Option(help="File of outcomes; a run that was cut off goes on.")] = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    data: DataOption = Path(DEFAULT_DATA),
    as_json: JsonOption = False,
) -> None:
    """Put every verified chip of a supplier's manifest on record; device id is the certificate's common name.

    Example: birthmark enroll manifest shipment.json --dry-run
    """
    from birthmark.fleet.bulk import Journal, Outcome, enroll_all, refused
    from birthmark.fleet.target import DeviceWish, Done

    counts: dict[str, int] = {}

    def tell(outcome: Outcome) -> None:
        counts[outcome.done.value] = counts.get(outcome.done.value, 0) + 1
        if as_json:
            typer.echo(json.dumps(outcome.as_row()))
        elif outcome.done is Done.REFUSED:
            typer.echo(f"Refused {outcome.device_id}: {outcome.message} {outcome.fix}", err=True)

    with refusals_shown(as_json=as_json):
        trust = open_trust(signer, root)
        target = _target(to, profile, data)
        total = sum(1 for _ in entries_of(file, trust, quiet=as_json))
        _confirm(target, profile, total, yes=yes or dry_run)

        def wishes() -> Iterator[DeviceWish]:
            entries = entries_of(file, trust, quiet=True)
            console = Console(stderr=True)
            hidden = as_json or not console.is_terminal
            for entry in track(entries, "Enrolling", total=total, console=console, transient=True, disable=hidden):
                if isinstance(entry, BirthmarkError):
                    tell(refused("-", None, entry))
                elif entry.certificate is None:
                    tell(Outcome(entry.device_id, None, Done.REFUSED, "manifest.no_certificate", _NO_CERTIFICATE, ""))
                else:
                    yield DeviceWish(entry.device_id, entry.certificate, is_edge=edge, policy=policy)

        with Journal(None if dry_run else journal or _journal_for(file, target.description)) as kept:
            for outcome in enroll_all(target, wishes(), kept, update=update, dry_run=dry_run):
                tell(outcome)
    summary = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    typer.echo(f"{target.description}: {summary or 'nothing to do'}.", err=True)
    if counts.get(Done.REFUSED.value):
        raise typer.Exit(SOME_ROWS_REFUSED)


_NO_CERTIFICATE = "The entry has no certificate; it cannot be enrolled by one."


@app.command("list")
def list_(
    to: ToOption = Cloud.AZURE,
    profile: ProfileOption = "local",
    data: DataOption = Path(DEFAULT_DATA),
    as_json: JsonOption = False,
) -> None:
    """List what is on record, with its state.

    Example: birthmark enroll list
    """
    with refusals_shown(as_json=as_json):
        rows = [record.as_row() for record in _target(to, profile, data).records()]
        show(rows, ("name", "kind", "state", "detail", "thumbprint"), as_json=as_json, nothing="Nothing is on record.")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="Registration id, thing, or with --group a group.")],
    is_group: Annotated[bool, typer.Option("--group", help="NAME is an enrollment group.")] = False,
    to: ToOption = Cloud.AZURE,
    profile: ProfileOption = "local",
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    data: DataOption = Path(DEFAULT_DATA),
) -> None:
    """Take a device or group off the record.

    Example: birthmark enroll remove sn0123ABCDEF01
    """
    with refusals_shown():
        target = _target(to, profile, data)
        _confirm(target, profile, 1, yes=yes or dry_run)
        if dry_run:
            typer.echo(f"Would remove {name} at {target.description}.", err=True)
            return
        target.remove(name, is_group=is_group)
        typer.echo(f"Removed {name} at {target.description}.", err=True)


def _target(to: Cloud, profile: str, data: Path) -> Any:
    from birthmark.fleet.aws import AwsTarget
    from birthmark.fleet.azure import AzureTarget
    from birthmark.fleet.profiles import aws_profile, azure_profile

    if to is Cloud.AZURE:
        return AzureTarget(azure_profile(profile, data))
    return AwsTarget(aws_profile(profile, data))


def _confirm(target: Any, profile: str, count: int, *, yes: bool) -> None:
    """Say where this goes, and ask before it goes anywhere but to a local server."""
    typer.echo(f"{count} record(s) for {target.description}", err=True)
    if profile != "local" and not yes:
        if not sys.stdin.isatty():
            typer.echo("Nothing was written: nobody is there to confirm it. Add --yes.", err=True)
            raise typer.Exit(ACTION_NEEDED)
        typer.confirm("Write there?", abort=True, err=True)


def _journal_for(file: Path, description: str) -> Path:
    mark = hashlib.sha256(f"{file.resolve()}\n{description}".encode()).hexdigest()[:16]
    return Path("~/.local/state/birthmark").expanduser() / f"enroll-{mark}.jsonl"
