"""Certificates of a CA directory as rows, and as files."""

from pathlib import Path
from typing import Any

from birthmark.ca.hierarchy import Hierarchy
from birthmark.ca.model import IssuedCertificate
from birthmark.cli.options.ca import AuthorityOptions
from birthmark.cli.output.command_output import certificate_row, emit, write_result
from birthmark.pki.certificate_profiles import Purpose
from birthmark.pki.certificates import Certificate


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
