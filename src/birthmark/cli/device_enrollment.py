"""`birthmark device enroll`, `template`, `ls`, `disable`, `enable`, `rm`: enrollments at Azure, AWS or Birthmark."""

import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from birthmark import atomic_files
from birthmark.cli.command_factory import JsonOption
from birthmark.cli.device_enroll_without_certificate import TpmOptions, check_file, enroll_keys, enroll_tpm
from birthmark.cli.input_files import read_ca_certificate, read_device_certificate
from birthmark.cli.manifest import ManifestOptions, count_entries
from birthmark.cli.option_checks_and_confirmation import confirm, only
from birthmark.cli.options.device_enrollment import (
    CannotWorkError,
    CloudName,
    DeviceOptions,
    Edge,
    Force,
    Hub,
    Issue,
    ProfileOptions,
    RunOptions,
    TargetOptions,
    TargetsOptions,
    TemplateOption,
    Update,
    WriteOptions,
    device_with,
)
from birthmark.cli.options.report import check_reports
from birthmark.cli.options.row_filter import PickOptions
from birthmark.cli.options.server import presented_certificate, show
from birthmark.cli.output.command_output import UsageError, emit, say
from birthmark.cli.output.device_revocation_marks import mark_revoked_rows, print_revocation_notices
from birthmark.clock_and_entropy import SystemClock
from birthmark.errors import InvalidRequestError
from birthmark.operator_api.client.server_discovery_and_api_client import client_for
from birthmark.untrusted_json_and_text import printable

if TYPE_CHECKING:
    from birthmark.fleet.enrollment_target import Change
    from birthmark.pki.certificates import Certificate


class CertificateNotNamedError(UsageError):
    """No certificate was specified."""

    code = "enroll.certificate_not_named"
    cause = "Enrolling a device requires its certificate, but no certificate was specified."
    fix = "Pass --cert FILE. To read the certificate from the chip: `birthmark chip cert --out FILE`."


class DeviceNotNamedError(UsageError):
    """The device has no name."""

    code = "enroll.device_not_named"
    cause = "The certificate has no common name to use as the device ID."
    fix = "Pass a device ID, such as the certificate's thumbprint: `{again} {thumbprint}`"
    again: str = ""
    thumbprint: str


class CaNotNamedError(UsageError):
    """The group's CA was not specified."""

    code = "enroll.ca_not_named"
    cause = "An enrollment group needs one CA: the name of a registered CA, or its certificate."
    fix = "Pass either --ca-name NAME or --cert FILE. To list the registered CAs: `birthmark dps ca ls`"


class GroupCertificateError(InvalidRequestError):
    """A device certificate was given where a CA certificate is required."""

    code = "enroll.not_a_ca"
    message = "{file} is not a CA certificate"
    cause = "'{subject}' is not a CA and cannot issue device certificates."
    fix = (
        "To enroll only this device: `birthmark device enroll --cert {file}`. For a group, use the certificate of "
        "the issuing CA."
    )
    file: str
    subject: str


class NothingInManifestError(InvalidRequestError):
    """A JSON file without entries."""

    code = "enroll.manifest_empty"
    message = "{path} has no entries"
    cause = "{path} contains no manifest entries: the file is empty, or is another kind of JSON file."
    fix = (
        "Use the JSON file as delivered by the supplier. To create an example for comparison: `birthmark "
        "manifest create --out rehearsal --count 1`."
    )
    path: Path


def device(
    how: DeviceOptions,
    where: TargetOptions,
    writing: WriteOptions,
    tpm: TpmOptions,
    device_id: Annotated[
        str | None, typer.Argument(help="Device ID at the hub. Default: the certificate's common name.")
    ] = None,
    cert: Annotated[Path | None, typer.Option(help="The device's certificate, PEM or DER.")] = None,
    presented: Annotated[
        str | None,
        typer.Option(
            metavar="THUMBPRINT", help="Thumbprint of a certificate that a local server rejected, from the error."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Enroll one device with its certificate, TPM or key.

    With a certificate, its common name is the registration ID on Azure. On Azure, a device can also use its TPM, or a
    symmetric key if it has no secure element.
    """
    from birthmark.cli.device_enroll_shipment import hint_at_policy
    from birthmark.fleet.enrollment_target import EnrollmentRequest, TargetOutcome
    from birthmark.manifests.certificate_preflight_checks import doubts_of

    how.check(azure=where.is_azure, aws=not where.is_azure)
    if (keys := tpm.keys()) is not None:
        only(where.is_azure, "with --to azure", endorsement_key=tpm.endorsement_key)
        only(cert is None, "without --endorsement-key", cert=cert)
        target, hub = where.open(), where.profile.hub_host(how.hub)
        writing.confirm(target, where.profile, 1)
        row: dict[str, Any] = enroll_tpm(target, keys, device_id, how, hub=hub, dry_run=writing.dry_run)
        row |= _at_hub(target, row, as_json=as_json)
        emit(as_json, row if as_json else row | {"at": target.description})
        return
    if tpm.symmetric_key is not None:
        only(where.is_azure, "with --to azure", symmetric_key=tpm.symmetric_key)
        only(cert is None, "without --symmetric-key", cert=cert)
        if device_id is None:
            raise typer.BadParameter("specify the device's name; no certificate provides one", param_hint="device_id")
        target, hub = where.open(), where.profile.hub_host(how.hub)
        writing.confirm(target, where.profile, 1)
        row = enroll_keys(target, tpm.symmetric_key, device_id, how, hub=hub, dry_run=writing.dry_run)
        row |= _at_hub(target, row, as_json=as_json)
        emit(as_json, row if as_json else row | {"at": target.description})
        return
    certificate = _certificate_of(cert, presented, device_id, where)
    target = where.open()
    doubts = doubts_of(certificate, SystemClock().now(), needs_common_name=where.is_azure)
    doubts += where.profile.revoked_here(certificate)
    _ask_about(device_with(certificate), doubts, is_decided=how.force or writing.dry_run, is_ca=certificate.is_ca)
    if not (name := device_id or certificate.subject_cn):
        raise DeviceNotNamedError(thumbprint=certificate.thumbprint.hex())
    hub = where.profile.hub_host(how.hub)
    writing.confirm(target, where.profile, 1)
    wish = EnrollmentRequest(name, certificate, is_edge=how.edge, hub=hub, policy=how.policy, issue=how.issue)
    done, difference = target.enroll(wish, update=how.update, dry_run=writing.dry_run)
    row = {"device": name, "thumbprint": certificate.thumbprint.hex(), "outcome": done.value}
    row |= _difference_fields(difference, as_json=as_json)
    if where.is_azure:
        row["registration_id"] = certificate.subject_cn or name
        row |= _at_hub(target, row, as_json=as_json)
    emit(as_json, row if as_json else row | {"at": target.description})
    if where.profile.is_local:
        print_revocation_notices(client_for(where.profile.data), name, certificate.subject_cn or name)
    hint_at_policy(
        needs_one=not where.is_azure
        and how.policy is None
        and done in {TargetOutcome.CREATED, TargetOutcome.WOULD_CREATE}
    )


def _difference_fields(difference: "Sequence[Change]", *, as_json: bool) -> dict[str, Any]:
    """Return the output fields with the differences; empty without any."""
    words = ", ".join(f"{change.what} {change.present} -> {change.wanted}" for change in difference)
    told = [change._asdict() for change in difference] if as_json else words
    return {"difference": told} if difference else {}


def _at_hub(target: Any, row: dict[str, Any], *, as_json: bool) -> dict[str, Any]:
    """Return the output fields for a hub that already has a device with the ID of a new enrollment."""
    from birthmark.fleet.enrollment_target import TargetOutcome

    is_new = row["outcome"] in {TargetOutcome.CREATED, TargetOutcome.WOULD_CREATE}
    if not is_new or (host := target.hub_with(row["device"])) is None:
        return {}
    told = f"{host} has this device: its registration replaces the credentials and keeps the twin"
    return {"at_hub": host if as_json else told}


def _certificate_of(cert: Path | None, presented: str | None, name: str | None, where: TargetOptions) -> "Certificate":
    if presented is not None:
        only(cert is None, "without --cert", presented=presented)
        only(where.profile.is_local, "with --profile local", presented=presented)
        return presented_certificate(client_for(where.profile.data), presented)
    if cert is not None:
        return read_device_certificate(cert)
    refused = CertificateNotNamedError()
    if name is not None and Path(name).is_file():
        rest = shlex.join(["birthmark", *(word for word in sys.argv[1:] if word != name)])
        refused.quote(fix=f"Name it by --cert: `{rest} --cert {shlex.quote(name)}`")
    raise refused


def group(
    profile: ProfileOptions,
    writing: WriteOptions,
    group_id: Annotated[str, typer.Argument(help="Name of the group: letters, digits and - . _ :")],
    ca_name: Annotated[str | None, typer.Option(help="Name of a registered CA certificate.")] = None,
    cert: Annotated[Path | None, typer.Option(help="The CA's certificate, PEM or DER.")] = None,
    secondary: Annotated[
        str | None,
        typer.Option(
            help=(
                "Secondary CA for a rollover: file as for --cert, or name as for --ca-name. With --symmetric-key,"
                " the file for the secondary key."
            )
        ),
    ] = None,
    symmetric_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Use keys derived from a service-generated group key; write the primary key to FILE.",
        ),
    ] = None,
    edge: Edge = False,
    update: Update = False,
    force: Force = False,
    hub: Hub = None,
    issue: Issue = None,
    as_json: JsonOption = False,
) -> None:
    """Create an enrollment group for a CA or a group key.

    With a CA, it covers every device with a certificate from the primary or secondary CA (Azure).

    With a group key, it covers every device with a derived key. An existing group is changed only with --update.
    """
    from birthmark.fleet.azure_target import AzureTarget
    from birthmark.manifests.certificate_preflight_checks import doubts_of_ca

    if symmetric_key is not None:
        only(ca_name is None and cert is None, "without --symmetric-key", ca_name=ca_name, cert=cert)
        second = None if secondary is None else Path(secondary)
        host = profile.hub_host(hub)
        for option, file in {"--symmetric-key": symmetric_key, "--secondary": second}.items():
            if file is not None:
                check_file(file, option, dry_run=writing.dry_run)
        keys = AzureTarget(profile.azure)
        writing.confirm(keys, profile, 1)
        enrolled, *made = keys.enroll_key_group(
            group_id, is_edge=edge, update=update, dry_run=writing.dry_run, hub=host, issue=issue
        )
        _keep((symmetric_key, second), made)
        row = {"group": group_id, "outcome": enrolled.done.value, "key": str(symmetric_key)}
        emit(as_json, row | _difference_fields(enrolled.difference, as_json=as_json))
        return
    if (ca_name is None) == (cert is None):
        raise CaNotNamedError
    names = [name for name in (ca_name, secondary) if name is not None] if cert is None else []
    files = [] if cert is None else [cert, *([] if secondary is None else [Path(secondary)])]
    certificates = [read_ca_certificate(file) for file in files]
    for file, certificate in zip(files, certificates, strict=True):
        if not certificate.is_ca:
            raise GroupCertificateError(subject=certificate.subject_text, file=shlex.quote(str(file)))
    target = AzureTarget(profile.azure)
    for certificate in certificates:
        doubts = doubts_of_ca(certificate, SystemClock().now()) + profile.revoked_here(certificate)
        who = f"Every device below the CA '{certificate.subject_text}'"
        _ask_about(who, doubts, is_decided=force or writing.dry_run)
    host = profile.hub_host(hub)
    writing.confirm(target, profile, 1)
    done, difference = target.enroll_group(
        group_id,
        ca_names=names,
        certificates=certificates,
        is_edge=edge,
        update=update,
        dry_run=writing.dry_run,
        hub=host,
        issue=issue,
    )
    row = {"group": group_id, "outcome": done.value}
    if certificates:
        row["ca"] = ", ".join(one.subject_text for one in certificates)
    emit(as_json, row | _difference_fields(difference, as_json=as_json))


def _keep(files: "Sequence[Path | None]", keys: "Sequence[str | None]") -> None:
    """Write keys to their output files."""
    for path, key in zip(files, keys, strict=True):
        if path is not None and key is not None:
            atomic_files.create(path, f"{key}\n".encode())


def manifest(
    how: DeviceOptions,
    where: TargetsOptions,
    writing: WriteOptions,
    shipped: ManifestOptions,
    run: RunOptions,
    template: TemplateOption = None,
) -> None:
    """Enroll the verified chips of a supplier's manifest.

    The device ID is the certificate's common name.

    The command compares the target first, so you can run it again after an interruption. Use --dry-run to print the
    differences. With --undo, it reverses the changes in the --journal file; objects changed since then are kept and
    listed. With two --to options, each target has its own journal and reports: run.azure.journal, run.aws.journal.
    """
    from birthmark.cli.device_enroll_shipment import EachTarget, Shipment, template_of

    how.check(azure=where.includes(CloudName.AZURE), aws=where.includes(CloudName.AWS))
    for place in where.each():
        each = run.for_target(place.to, among=len(where.each()))
        check_reports(each.report, shipped.file, each.journal, template)
    targets = EachTarget(where, writing, run, as_json=shipped.as_json)
    if run.undo:
        targets.undo()
        return
    only(not writing.dry_run, "to writes, not to --dry-run", journal=run.journal)
    wanted = template_of(template, how)
    trust = shipped.trust()
    opened = targets.opened()
    total = count_entries(shipped.file)
    if total == 0:
        raise NothingInManifestError(path=shipped.file)
    shipment = Shipment(shipped.file, trust, total, wanted, quiet=shipped.as_json, force=how.force)
    targets.enroll(opened, shipment, update=how.update)


def show_template() -> None:
    """Print a template for `device enroll-list --template`.

    It contains every key and the variables of its texts.
    """
    from birthmark.fleet.enrollment_template import example

    typer.echo(example(), nl=False)


def list_(target: TargetOptions, pick: PickOptions, as_json: JsonOption = False) -> None:
    """List enrollments and things with their states."""
    found: Iterable[dict[str, Any]] = map(asdict, target.open().records())
    if target.profile.is_local:
        found = mark_revoked_rows(found, client_for(target.profile.data), name="name", state="state")
    nothing = "No row matches --where." if pick.where else "No device is enrolled."
    if target.profile.is_local and not pick.where:
        nothing += " List devices created directly in a hub: `birthmark hub device ls`"
    rows = pick.filter_rows(found)
    show(rows, ("name", "kind", "state", "detail", "thumbprint"), as_json=as_json, nothing=nothing)


IsGroup = Annotated[bool, typer.Option("--group", help="Treat NAME as an enrollment group.")]
Registration = Annotated[str, typer.Argument(help="Registration ID, or with --group an enrollment group.")]


def disable(
    where: TargetOptions,
    writing: WriteOptions,
    name: Registration,
    is_group: IsGroup = False,
    as_json: JsonOption = False,
) -> None:
    """Disable an enrollment without deleting it (Azure).

    Devices cannot register with it.
    """
    _switch(where, writing, name, is_group=is_group, is_enabled=False, as_json=as_json)


def enable(
    where: TargetOptions,
    writing: WriteOptions,
    name: Registration,
    is_group: IsGroup = False,
    as_json: JsonOption = False,
) -> None:
    """Enable a disabled enrollment (Azure)."""
    _switch(where, writing, name, is_group=is_group, is_enabled=True, as_json=as_json)


def _switch(
    where: TargetOptions, writing: WriteOptions, name: str, *, is_group: bool, is_enabled: bool, as_json: bool
) -> None:
    from birthmark.fleet.azure_target import AzureTarget

    target = where.open(takes_away=not is_enabled)
    if not isinstance(target, AzureTarget):
        raise typer.BadParameter(
            (
                "things cannot be disabled; disable their certificates: `aws iot update-certificate --new-status "
                "INACTIVE`"
            ),
            param_hint="--to",
        )
    writing.confirm(target, where.profile, 1)
    with where.add_target_to_errors():
        switched = target.switch(name, is_group=is_group, is_enabled=is_enabled, dry_run=writing.dry_run)
    kind, state = "group" if is_group else "individual", "enabled" if is_enabled else "disabled"
    emit(as_json, {"name": name, "kind": kind, "state": state, "outcome": switched.done.value})
    if not is_enabled:
        _say_still_a_device(where, "disable", switched.device_id, switched.hub)
    elif where.profile.is_local and not is_group:
        print_revocation_notices(client_for(where.profile.data), name, switched.device_id or name)


def remove(
    where: TargetOptions,
    writing: WriteOptions,
    name: Annotated[str, typer.Argument(help="Registration ID, thing, or with --group an enrollment group.")],
    is_group: IsGroup = False,
    as_json: JsonOption = False,
) -> None:
    """Delete an enrollment, a thing or an enrollment group."""
    from birthmark.fleet.azure_target import AzureTarget

    target = where.open(takes_away=True)
    only(where.is_azure, "with --to azure", group=is_group)
    writing.confirm(target, where.profile, 1)
    if writing.dry_run:
        say(as_json, {"would_remove": name}, f"Would remove {name} at {target.description}.")
        return
    with where.add_target_to_errors():
        device_id, hub = None, None
        if isinstance(target, AzureTarget) and not is_group:
            device_id, hub = target.registered(name)
        notes = target.remove(name, is_group=is_group)
    say(as_json, {"removed": name}, f"Removed {name} at {target.description}.")
    for note in notes:
        typer.echo(printable(note), err=True)
    _say_still_a_device(where, "rm", device_id, hub)


def _say_still_a_device(where: TargetOptions, verb: str, device_id: str | None, hub: str | None) -> None:
    """Print that a registered device still exists at its hub, and how to change that."""
    if device_id is None or hub is None:
        return
    end = ""
    if where.profile.is_local:
        named = f"{shlex.quote(device_id)}{where.profile.hub_option(hub)}"
        end = f". To change that: `birthmark hub device {verb} {named}`"
    typer.echo(printable(f"It still exists in {hub} and can connect{end}."), err=True)


def _ask_about(who: str, doubts: list[str], *, is_decided: bool, is_ca: bool = False) -> None:
    """Print why a record may not work, and request confirmation to create it."""
    if not doubts:
        return
    error = CannotWorkError(who=who, detail=" and ".join(doubts))
    if is_ca:
        error.quote(fix="Use the device's own certificate, not its CA's. In a file of several, put it first.")
    if not is_decided and not sys.stdin.isatty():
        raise error
    typer.echo(f"Warning: {printable(error.explain_cause())}", err=True)
    confirm("Enroll it anyway?", yes=is_decided)
