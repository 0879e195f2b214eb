"""`birthmark enroll`: put devices on record, at Azure, AWS or a Birthmark server by the same commands."""

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from birthmark.cli.asking import CannotWorkError, agree, device_with, only, only_typed
from birthmark.cli.common import (
    SOME_ROWS_REFUSED,
    UsageError,
    emit,
    read_certificate,
    telling_refusals,
)
from birthmark.cli.manifest import ManifestFile, RootOption, SignerOption, count_entries, open_trust
from birthmark.cli.operator import DEFAULT_DATA, DataOption, JsonOption, operator, show
from birthmark.clock import SystemClock
from birthmark.errors import InvalidRequestError
from birthmark.pki.certificates import Certificate
from birthmark.text import printable

app = typer.Typer(
    help="Put devices on record: one, a CA's, a shipment.",
    epilog="Example: birthmark enroll device --cert device.pem",
    no_args_is_help=True,
)


class CertificateNotNamedError(UsageError):
    """No certificate was named."""

    code = "enroll.certificate_not_named"
    cause = "A device is put on record by its certificate, and none was named."
    fix = "Give --cert FILE; `birthmark element cert --out FILE` reads it from the chip."


class DeviceNotNamedError(UsageError):
    """The device has no name."""

    code = "enroll.device_not_named"
    cause = "The certificate has no common name, which would be the device id."
    fix = "Name the device, as here by its certificate's thumbprint: `{again} {thumbprint}`"
    again: str = ""
    thumbprint: str


class CaNotNamedError(UsageError):
    """The group's CA was not named."""

    code = "enroll.ca_not_named"
    cause = "A group is put on record by one CA: the name of one on record, or its certificate."
    fix = "Give either --ca-name NAME (see `birthmark dps ca list`) or --cert FILE."


class GroupCertificateError(InvalidRequestError):
    """A device's certificate where a CA's belongs."""

    code = "enroll.not_a_ca"
    message = "{file}: not a CA's certificate."
    cause = "'{subject}' is not a CA: no device's certificate can be issued by it."
    fix = "Enroll this one device: `birthmark enroll device --cert {file}`. A group needs the CA that issued it."
    file: str
    subject: str


class NothingInManifestError(InvalidRequestError):
    """A JSON file in which there is no entry."""

    code = "enroll.manifest_empty"
    message = "{path} has no entries"
    cause = "{path} holds no manifest entry: it is empty, or another kind of JSON."
    fix = (
        "Give the JSON file as the supplier delivered it. One to compare with is made by "
        "`birthmark manifest create --out rehearsal --count 1`."
    )
    path: Path


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
ForceOption = Annotated[
    bool, typer.Option("--force", help="Also put on record what will be refused: expired, weak, without a name.")
]
UpdateOption = Annotated[bool, typer.Option("--update", help="Replace what is on record with another certificate.")]
EdgeOption = Annotated[bool, typer.Option("--edge", help="Make it an IoT Edge device (Azure).")]
PolicyOption = Annotated[str | None, typer.Option("--policy", help="Policy to attach (AWS).")]


@app.command()
def device(
    device_id: Annotated[
        str | None, typer.Argument(help="What the device is called at its hub; default: the certificate's common name.")
    ] = None,
    cert: Annotated[Path | None, typer.Option(help="The device's certificate, PEM or DER.")] = None,
    edge: EdgeOption = False,
    policy: PolicyOption = None,
    to: ToOption = Cloud.AZURE,
    profile: ProfileOption = "local",
    update: UpdateOption = False,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    yes: YesOption = False,
    data: DataOption = Path(DEFAULT_DATA),
    as_json: JsonOption = False,
) -> None:
    """Put one device on record by its certificate; at Azure its common name is the registration id.

    Example: birthmark enroll device --cert se050.pem --edge
    """
    from birthmark.fleet.doubts import doubts_of
    from birthmark.fleet.target import EnrollmentRequest

    with telling_refusals(as_json=as_json):
        _check_options(to, edge=edge, policy=policy)
        if cert is None:
            raise CertificateNotNamedError
        certificate = read_certificate(cert)
        target = _target(to, profile, data)
        doubts = doubts_of(certificate, SystemClock().now(), needs_common_name=to is Cloud.AZURE)
        doubts += _revoked_here(certificate, profile, data)
        if doubts:
            _ask_about(device_with(certificate), doubts, is_decided=force or dry_run)
        if not (name := device_id or certificate.subject_cn):
            raise DeviceNotNamedError(thumbprint=certificate.thumbprint.hex())
        _confirm(target, profile, 1, yes=yes or dry_run)
        wish = EnrollmentRequest(name, certificate, is_edge=edge, policy=policy)
        done = target.enroll(wish, update=update, dry_run=dry_run)
        row = {"device": name, "thumbprint": certificate.thumbprint.hex(), "outcome": done.value}
        if to is Cloud.AZURE:
            row["registration_id"] = certificate.subject_cn or name
        emit(as_json, row if as_json else row | {"at": target.description})


@app.command()
def group(
    group_id: Annotated[str, typer.Argument(help="Name of the group: letters, digits and - . _ :")],
    ca_name: Annotated[str | None, typer.Option(help="Name of a CA certificate on record.")] = None,
    cert: Annotated[Path | None, typer.Option(help="The CA's certificate, PEM or DER.")] = None,
    edge: EdgeOption = False,
    profile: ProfileOption = "local",
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    yes: YesOption = False,
    data: DataOption = Path(DEFAULT_DATA),
    as_json: JsonOption = False,
) -> None:
    """Put a group on record: every device whose certificate the CA issued (Azure).

    Example: birthmark enroll group my-devices --ca-name my-ca
    """
    from birthmark.fleet.azure import AzureTarget
    from birthmark.fleet.profiles import azure_profile

    with telling_refusals(as_json=as_json):
        if (ca_name is None) == (cert is None):
            raise CaNotNamedError
        certificate = None if cert is None else read_certificate(cert)
        if certificate is not None and not certificate.is_ca:
            raise GroupCertificateError(subject=certificate.subject_text, file=shlex.quote(str(cert)))
        target = AzureTarget(azure_profile(profile, data))
        _check_ca(certificate, profile, data, is_decided=force or dry_run)
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
    journal: Annotated[
        Path | None, typer.Option(help="Keep every outcome in this file, which belongs to one target.")
    ] = None,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    yes: YesOption = False,
    data: DataOption = Path(DEFAULT_DATA),
    as_json: JsonOption = False,
) -> None:
    """Put every verified chip of a supplier's manifest on record; device id is the certificate's common name.

    The target is asked what is on record already: a run that was cut off is simply run again.

    Example: birthmark enroll manifest shipment.json --dry-run
    """
    from birthmark.cli.shipment import Shipment, enroll_shipment
    from birthmark.cli.tally import Tally

    tally = Tally(as_json=as_json)
    with telling_refusals(as_json=as_json):
        _check_options(to, edge=edge, policy=policy)
        only(not dry_run, "where something is written, which --dry-run does not", journal=journal)
        trust = open_trust(signer, root)
        target = _target(to, profile, data)
        total = count_entries(file)
        if total == 0:
            raise NothingInManifestError(path=file)
        _confirm(target, profile, total, yes=yes or dry_run)
        shipment = Shipment(file, trust, total, needs_common_name=to is Cloud.AZURE, force=force)
        enroll_shipment(
            target, shipment, tally, edge=edge, policy=policy, journal=journal, update=update, dry_run=dry_run
        )
    if tally.has_refusals:
        raise typer.Exit(SOME_ROWS_REFUSED)


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
    with telling_refusals(as_json=as_json):
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
    with telling_refusals():
        target = _target(to, profile, data)
        only(to is Cloud.AZURE, "with --to azure", group=is_group)
        _confirm(target, profile, 1, yes=yes or dry_run)
        if dry_run:
            typer.echo(f"Would remove {name} at {target.description}.", err=True)
            return
        target.remove(name, is_group=is_group)
        typer.echo(f"Removed {name} at {target.description}.", err=True)
        if profile == "local" and to is Cloud.AZURE and not is_group:
            end = f"`birthmark hub device delete {shlex.quote(name)}`"
            typer.echo(f"If it registered, it is still a device of its hub and may connect: {end} ends that.", err=True)


def _target(to: Cloud, profile: str, data: Path) -> Any:
    only_typed(profile == "local", "with --profile local", "--data")
    from birthmark.fleet.aws import AwsTarget
    from birthmark.fleet.azure import AzureTarget
    from birthmark.fleet.profiles import aws_profile, azure_profile

    if to is Cloud.AZURE:
        return AzureTarget(azure_profile(profile, data))
    return AwsTarget(aws_profile(profile, data))


def _check_options(to: Cloud, *, edge: bool, policy: str | None) -> None:
    only(to is Cloud.AZURE, "with --to azure", edge=edge)
    only(to is Cloud.AWS, "with --to aws", policy=policy)


def _check_ca(certificate: Certificate | None, profile: str, data: Path, *, is_decided: bool) -> None:
    from birthmark.fleet.doubts import doubts_of_ca

    if certificate is None:
        return
    doubts = doubts_of_ca(certificate, SystemClock().now()) + _revoked_here(certificate, profile, data)
    if doubts:
        _ask_about(f"Every device below the CA '{certificate.subject_text}'", doubts, is_decided=is_decided)


def _revoked_here(certificate: Certificate, profile: str, data: Path) -> list[str]:
    """Return the word of a local server's CA on a certificate that it, or a CA of it, took back."""
    if profile != "local":
        return []
    told = operator(data).post("/certificates/check", {"certificate": certificate.pem()})
    return [told["revoked"].rstrip(".")] if told["revoked"] else []


def _ask_about(who: str, doubts: list[str], *, is_decided: bool) -> None:
    """Say why a record could never work, and ask whether it shall be made all the same."""
    error = CannotWorkError(who=who, detail=" and ".join(doubts))
    if not is_decided and not sys.stdin.isatty():
        raise error
    typer.echo(f"Warning: {printable(error.explain_cause())}", err=True)
    agree("Put it on record all the same?", yes=is_decided)


def _confirm(target: Any, profile: str, count: int, *, yes: bool) -> None:
    """Say where this goes, and ask before it goes anywhere but to a local server."""
    typer.echo(f"{count} {'record' if count == 1 else 'records'} for {target.description}", err=True)
    agree(f"Write to {target.description}?", yes=yes or profile == "local")
