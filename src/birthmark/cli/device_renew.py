"""`birthmark device renew`: transfer policies and things at AWS to a renewed certificate, and retire the old one."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from birthmark.cli.command_factory import JsonOption
from birthmark.cli.input_files import read_device_certificate
from birthmark.cli.option_checks_and_confirmation import OptionNotApplicableError, confirm
from birthmark.cli.options.device_enrollment import TargetOptions, WriteOptions
from birthmark.cli.options.duration import parse_within
from birthmark.cli.output.command_output import emit, without
from birthmark.durations import FORMS
from birthmark.untrusted_json_and_text import printable


def renew(
    where: TargetOptions,
    writing: WriteOptions,
    name: Annotated[str, typer.Argument(help="Thing.")],
    cert: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="File with the new certificate: PEM.")],
    old: Annotated[
        str | None, typer.Option(metavar="ID", help="ID of the old certificate, if the thing has several.")
    ] = None,
    wait: Annotated[
        timedelta | None,
        typer.Option(parser=parse_within, metavar="DURATION", help=f"Time limit for the device's connection: {FORMS}."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Transfer policies and things to a renewed certificate.

    For AWS; with --wait, also deactivates the old certificate.

    The old certificate is deactivated after the device has connected, and reactivated if that disconnects the device.
    Run the command again to continue. Azure identifies a device by its name; use `device enroll --update` there.
    """
    from birthmark.fleet.aws_renewal import format_result
    from birthmark.fleet.aws_target import AwsTarget
    from birthmark.pki.certificates import CertificateInvalidError

    if where.is_azure:
        raise OptionNotApplicableError(
            option="--cert", when="with --to aws", without=f"{without('--to', takes_value=True)} --to aws"
        )
    if (certificate := read_device_certificate(cert)).is_ca:
        raise CertificateInvalidError(detail=f"{cert.name} contains a CA certificate, but no device certificate")
    target = where.open()
    assert isinstance(target, AwsTarget)  # noqa: S101 - just checked
    writing.confirm(target, where.profile, 1, "certificate")
    again_by, again = without("--old", takes_value=True), f"{without('--wait', takes_value=True)} --wait 10min"
    carried = target.carry(name, certificate, old, dry_run=True, command=again_by)
    subject = target.common_name_of(carried.old)
    if certificate.subject_cn not in {subject, name}:
        whose = f"'{certificate.subject_text}', the old one of '{subject or carried.old}'"
        typer.echo(f"Warning: the new certificate is of {printable(whose)}.", err=True)
        confirm(
            "Give the new certificate the things and policies of the old one anyway?",
            yes=writing.yes or writing.dry_run,
        )
    if not writing.dry_run:
        carried = target.carry(name, certificate, old, dry_run=False, command=again_by)
    if wait is not None and not writing.dry_run:
        is_retired = target.retire_old(name, carried, wait, command=again)
        carried = replace(carried, is_retired=is_retired)
        if not is_retired:
            typer.echo(f"{carried.old} stays active: it is also attached to other things.", err=True)
    emit(as_json, dict(format_result(carried)))
