"""`birthmark ca revoke` and `crl`: revoke certificates and write the CRL."""

import shlex
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from birthmark.ca.model import IssuedCertificate
from birthmark.ca.revocation import AlreadyRevokedError, CertificateUnknownError
from birthmark.cli.ca.server_managed_ca import ServerCommand, at_server
from birthmark.cli.options.ca import OPERATOR, AuthorityOptions, opened
from birthmark.cli.output.ca_certificate_files import file_name, issued_row, write
from birthmark.cli.output.command_output import emit
from birthmark.errors import BirthmarkError
from birthmark.pki.certificate_profiles import Purpose
from birthmark.pki.certificates import parse_bundle
from birthmark.pki.crl_encoder import RevocationReason

_THUMBPRINT_DIGITS = 64


async def revoke(
    authority: AuthorityOptions,
    wanted: Annotated[str, typer.Argument(metavar="ID", help="Thumbprint, serial number or device id.")],
    reason: Annotated[
        RevocationReason, typer.Option(help="Revocation reason (RFC 5280 section 5.3.1).")
    ] = RevocationReason.UNSPECIFIED,
) -> None:
    """Revoke the valid certificates that match ID.

    A device ID matches all certificates of the device.
    """
    async with opened(authority, _at_server(wanted, reason)) as ca:
        found = [one for one in await ca.search(wanted) if not one.is_revoked]
        if not found:
            raise CertificateUnknownError(wanted=wanted)
        for one in found:
            with suppress(AlreadyRevokedError):  # revoked with an earlier one of the same key
                await ca.revocations.certificate(one.certificate.thumbprint, OPERATOR, reason)
        found = await ca.search(wanted)
    for one in found:
        emit(authority.as_json, issued_row(one))
    if not authority.as_json and reason is not RevocationReason.SUPERSEDED:
        why = "" if reason is RevocationReason.UNSPECIFIED else f" --reason {reason.value}"
        told = f"birthmark pki revoke --key-of {_file_of(found)}{why}"
        typer.echo(f"Revoke them on a Birthmark server: `{told}`", err=True)


async def crl(
    authority: AuthorityOptions,
    purpose: Annotated[Purpose, typer.Option("--of", help="CA that signed the CRL.")] = Purpose.DEVICES,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Output file. Default: standard output.")] = None,
) -> None:
    """Write the certificate revocation list (PEM).

    Reload it in brokers that use a CRL file after each revocation.
    """
    async with opened(authority, at_server("pki", "crl", "--of", purpose, *(("--out", str(out)) if out else ()))) as ca:
        issuer = ca.hierarchy.issuer(purpose, now=ca.clock.now(), entropy=ca.entropy)
        made = x509.load_der_x509_crl(await ca.crl(issuer))
    text = made.public_bytes(serialization.Encoding.PEM).decode()
    next_update = made.next_update_utc.isoformat() if made.next_update_utc else None
    row = {"revoked": len(made), "next_update": next_update, "file": str(out) if out else None}
    write(text, out, row, {**row, "crl": text}, authority.as_json, keeps=False)


def _at_server(wanted: str, reason: RevocationReason) -> ServerCommand:
    is_one = len(wanted.replace(":", "")) == _THUMBPRINT_DIGITS
    why = () if reason is RevocationReason.UNSPECIFIED else ("--reason", reason.value)
    return at_server("pki", "revoke", *((wanted,) if is_one else ("--device", wanted)), *why)


def _file_of(certificates: list[IssuedCertificate]) -> str:
    """Return the file of one of these certificates, as named by `ca issue`; otherwise FILE as a placeholder."""
    for one in certificates:
        path = Path(f"{file_name(one.device_id or '')}.cert.pem")
        with suppress(OSError, BirthmarkError):
            if parse_bundle(path.read_bytes())[0] == one.certificate:
                return shlex.quote(str(path))
    return "FILE"
