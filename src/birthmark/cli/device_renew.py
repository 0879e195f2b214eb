"""`birthmark device renew`: a renewed certificate follows the old one at a cloud where it is a new principal."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from birthmark.cli.certificate_inventory import parse_within
from birthmark.cli.command_factory import JsonOption
from birthmark.cli.common import emit, read_device_certificate, without
from birthmark.cli.confirmation import OptionNotApplicableError, agree
from birthmark.cli.device_enroll_options import TargetOptions, WriteOptions
from birthmark.durations import FORMS
from birthmark.untrusted_text import printable


def renew(
    where: TargetOptions,
    writing: WriteOptions,
    name: Annotated[str, typer.Argument(help="The thing.")],
    cert: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="The new certificate, in PEM.")],
    old: Annotated[
        str | None, typer.Option(metavar="ID", help="The certificate that was renewed, where the thing has several.")
    ] = None,
    wait: Annotated[
        timedelta | None,
        typer.Option(parser=parse_within, metavar="TIME", help=f"How long the device may take to connect: {FORMS}."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Carry policies and things over to a device's renewed certificate at AWS; with --wait, let the old one go then.

    The old one is made inactive when the device has connected since, and active again where that cuts it off. Typed
    again it goes on where it was. Azure knows a device by its name: there `device enroll --update` is all.
    """
    from birthmark.fleet.aws_renewal import told
    from birthmark.fleet.aws_target import AwsTarget
    from birthmark.pki.certificates import CertificateInvalidError

    if where.is_azure:
        raise OptionNotApplicableError(
            option="--cert", when="with --to aws", without=f"{without('--to', takes_value=True)} --to aws"
        )
    if (certificate := read_device_certificate(cert)).is_ca:
        raise CertificateInvalidError(detail=f"{cert.name} has a CA's certificate, and none of a device")
    target = where.open()
    assert isinstance(target, AwsTarget)  # noqa: S101 - as was just said
    writing.confirm(target, where.profile, 1, "certificate")
    again_by, again = without("--old", takes_value=True), f"{without('--wait', takes_value=True)} --wait 10min"
    carried = target.carry(name, certificate, old, dry_run=True, command=again_by)
    subject = target.common_name_of(carried.old)
    if certificate.subject_cn not in {subject, name}:
        whose = f"'{certificate.subject_text}', the old one of '{subject or carried.old}'"
        typer.echo(f"Warning: the new certificate is of {printable(whose)}.", err=True)
        agree("Give it what the old one has all the same?", yes=writing.yes or writing.dry_run)
    if not writing.dry_run:
        carried = target.carry(name, certificate, old, dry_run=False, command=again_by)
    if wait is not None and not writing.dry_run:
        is_retired = target.retire_old(name, carried, wait, command=again)
        carried = replace(carried, is_retired=is_retired)
        if not is_retired:
            typer.echo(f"{carried.old} stays active: other things have it, too.", err=True)
    emit(as_json, dict(told(carried)))
