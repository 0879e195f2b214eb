"""`birthmark ca`: an operator's own certificate authority in a directory.

The directory holds the hierarchy (`birthmark.ca.hierarchy`) and the inventory of what it issued (`inventory.db`).
"""

import contextlib
import ipaddress
import re
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.ca import hierarchy
from birthmark.ca.hierarchy import Hierarchy
from birthmark.ca.keyfile import write_private
from birthmark.ca.model import Issued
from birthmark.ca.revocation import AlreadyRevokedError, CertificateUnknownError
from birthmark.ca.service import CertificateAuthority
from birthmark.cli.asking import only
from birthmark.cli.common import (
    FileExistsAlreadyError,
    about,
    certificate_row,
    emit,
    parse_lifetime,
    read_file,
    run,
    telling_refusals,
    write_result,
)
from birthmark.clock import SystemClock, SystemEntropy
from birthmark.errors import BirthmarkError
from birthmark.pki.certificates import Certificate, parse_bundle
from birthmark.pki.crl import RevocationReason
from birthmark.pki.csr import MAX_CSR_BYTES, CertificateRequest, CsrMalformedError, CsrTooLargeError, parse_csr
from birthmark.pki.issue import new_serial
from birthmark.pki.names import name_of
from birthmark.pki.pem import unarmor
from birthmark.pki.possession import prove_possession
from birthmark.pki.profiles import DEVICE, SERVER, Profile
from birthmark.store import open_database

app = typer.Typer(
    help="Run a certificate authority of your own in a directory.",
    epilog='Example: birthmark ca init --name "Example Gateways" --dir ca',
    no_args_is_help=True,
)
_DNS = re.compile(r"(?=.{1,253}$)(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")

_OPERATOR = Principal(PrincipalKind.OPERATOR, "cli")
_DEFAULT_LIFETIME = timedelta(days=365)
_VERIFICATION_LIFETIME = timedelta(days=1)

Directory = Annotated[
    Path, typer.Option("--dir", envvar="BIRTHMARK_CA_DIR", help="The CA's directory.", file_okay=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="File to write; default is standard output.")]
Lifetime = Annotated[
    timedelta | None,
    typer.Option("--lifetime", parser=parse_lifetime, metavar="TIME", help="20s, 30min, 12h or 365d (default: 365d)."),
]


def parse_dns_name(text: str) -> x509.GeneralName:
    """Return the name or address of a server as it stands in a certificate (RFC 5280 section 4.2.1.6)."""
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(text))
    if _DNS.fullmatch(text) is None:
        raise typer.BadParameter(f"'{text[:80]}' is no DNS name and no IP address")
    return x509.DNSName(text)


class Kind(StrEnum):
    """What a certificate is for."""

    DEVICE = "device"
    SERVER = "server"


class Level(StrEnum):
    """Which CA."""

    ROOT = "root"
    ISSUING = "issuing"


_PROFILES: dict[Kind, Profile] = {Kind.DEVICE: DEVICE, Kind.SERVER: SERVER}


@app.command(epilog='Example: birthmark ca init --dir ca --name "Example Gateways"')
def init(
    name: Annotated[str, typer.Option(help="Your organization's name.")],
    directory: Directory = Path("ca"),
    flat: Annotated[bool, typer.Option(help="A root that signs devices itself, without an issuing CA.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a root (20 years) and an issuing CA below it. Keys are encrypted files of mode 0600."""
    with telling_refusals(as_json=as_json):
        made = hierarchy.create(directory, name, now=SystemClock().now(), entropy=SystemEntropy(), flat=flat)
    _show_hierarchy(directory, made, as_json)


@app.command(epilog="Example: birthmark ca show device-1 --dir ca")
def show(
    wanted: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Thumbprint, serial number or device id.")
    ] = None,
    directory: Directory = Path("ca"),
    as_json: AsJson = False,
) -> None:
    """Show the CA's certificates and what it issued, or what it issued to ID."""

    async def body() -> tuple[Hierarchy, list[Issued]]:
        async with _opened(directory) as ca:
            found = await ca.latest() if wanted is None else await ca.search(wanted)
            if wanted is not None and not found:
                raise CertificateUnknownError(wanted=wanted)
            return ca.hierarchy, found

    made, found = run(body, as_json=as_json)
    if wanted is None:
        _show_hierarchy(directory, made, as_json)
    for one in found:
        if not as_json:
            typer.echo()
        emit(as_json, _issued_row(one))


@app.command(epilog="Example: birthmark ca sign device.csr --dir ca --out device.pem")
def sign(
    csr: Annotated[Path, typer.Argument(help="Certificate request, PEM or DER, as `birthmark element csr` makes it.")],
    *,
    directory: Directory = Path("ca"),
    kind: Annotated[Kind, typer.Option("--profile", help="What the certificate is for.")] = Kind.DEVICE,
    dns: Annotated[
        list[x509.GeneralName] | None,
        typer.Option(parser=parse_dns_name, metavar="NAME", help="DNS name or IP address of a server; repeatable."),
    ] = None,
    lifetime: Lifetime = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Sign a certificate request; writes the certificate with the chain it needs, leaf first."""

    async def body() -> tuple[Certificate, ...]:
        only(kind is Kind.SERVER, "with --profile server", dns=dns)
        return await _issue(directory, _read_csr(csr), kind, dns or [], lifetime)

    _write_chain(run(body, as_json=as_json), out, as_json)


@app.command(epilog="Example: birthmark ca issue gateway-7 --dir ca --out-dir gateway-7")
def issue(
    name: Annotated[str, typer.Argument(help="Common name: the device id or host name.")],
    *,
    directory: Directory = Path("ca"),
    kind: Annotated[Kind, typer.Option("--profile", help="What the certificate is for.")] = Kind.DEVICE,
    dns: Annotated[
        list[x509.GeneralName] | None,
        typer.Option(parser=parse_dns_name, metavar="NAME", help="DNS name or IP address of a server; repeatable."),
    ] = None,
    lifetime: Lifetime = None,
    out_dir: Annotated[Path, typer.Option(help="Where NAME.key.pem and NAME.cert.pem go.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Make a key in a file and a certificate for it: for servers, and for devices without a secure element."""

    async def body() -> tuple[Certificate, ...]:
        only(kind is Kind.SERVER, "with --profile server", dns=dns)
        key = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder(subject_name=name_of(name)).sign(key, hashes.SHA256())
        parsed = parse_csr(request.public_bytes(serialization.Encoding.DER))
        path = out_dir / f"{_file_name(name)}.key.pem"
        if path.exists():
            raise FileExistsAlreadyError(path=path)
        chain = await _issue(directory, parsed, kind, dns or [], lifetime)
        _write_key(path, key)
        return chain

    _write_chain(run(body, as_json=as_json), out_dir / f"{_file_name(name)}.cert.pem", as_json)


@app.command("verify-possession", epilog="Example: birthmark ca verify-possession 3F9C…A1 --dir ca --out proof.pem")
def verify_possession(
    code: Annotated[str, typer.Argument(help="The verification code (Azure) or registration code (AWS).")],
    directory: Directory = Path("ca"),
    level: Annotated[Level, typer.Option("--with", help="The CA that is put on record.")] = Level.ROOT,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Prove to a cloud that you have the CA's key: writes a certificate for CODE, signed by it."""
    with telling_refusals(as_json=as_json):
        made = hierarchy.load(directory)
        proof = prove_possession(
            code,
            made.root if level is Level.ROOT else made.issuing,
            ec.generate_private_key(ec.SECP256R1()).public_key(),
            serial=new_serial(SystemEntropy()),
            now=SystemClock().now(),
            lifetime=_VERIFICATION_LIFETIME,
        )
    _write_chain((proof,), out, as_json)


@app.command(epilog="Example: birthmark ca revoke device-1 --reason keyCompromise --dir ca")
def revoke(
    wanted: Annotated[str, typer.Argument(metavar="ID", help="Thumbprint, serial number or device id.")],
    directory: Directory = Path("ca"),
    reason: Annotated[
        RevocationReason, typer.Option(help="Why (RFC 5280 section 5.3.1).")
    ] = RevocationReason.UNSPECIFIED,
    as_json: AsJson = False,
) -> None:
    """Revoke the certificates that fit ID and are not revoked yet. A device id means all of that device."""

    async def body() -> list[Issued]:
        async with _opened(directory) as ca:
            found = [one for one in await ca.search(wanted) if not one.is_revoked]
            if not found:
                raise CertificateUnknownError(wanted=wanted)
            for one in found:
                with suppress(AlreadyRevokedError):  # it went with an earlier one of the same key
                    await ca.revoke(one.certificate.thumbprint, _OPERATOR, reason)
            return await ca.search(wanted)

    found = run(body, as_json=as_json)
    for one in found:
        emit(as_json, _issued_row(one))
    if not as_json and reason is not RevocationReason.SUPERSEDED:
        why = "" if reason is RevocationReason.UNSPECIFIED else f" --reason {reason.value}"
        command = f"birthmark est revoke --key-of {_file_of(found)}{why}"
        typer.echo(f"A Birthmark server is told by: `{command}`", err=True)


@app.command(epilog="Example: birthmark ca crl --dir ca --out ca.crl")
def crl(
    directory: Directory = Path("ca"),
    level: Annotated[Level, typer.Option("--of", help="Whose list.")] = Level.ISSUING,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Write the revocation list (PEM). Brokers that take one want it again after each revocation."""

    async def body() -> bytes:
        async with _opened(directory) as ca:
            return await ca.crl(ca.hierarchy.root if level is Level.ROOT else ca.hierarchy.issuing)

    made = x509.load_der_x509_crl(run(body, as_json=as_json))
    text = made.public_bytes(serialization.Encoding.PEM).decode()
    if out is not None or not as_json:
        write_result(out, text)
    if as_json or out is not None:
        next_update = made.next_update_utc.isoformat() if made.next_update_utc else None
        row = {"revoked": len(made), "next_update": next_update, "file": str(out) if out else None}
        emit(as_json, {**row, "crl": text} if as_json else row)


@asynccontextmanager
async def _opened(directory: Path) -> AsyncIterator[CertificateAuthority]:
    clock = SystemClock()
    made = hierarchy.load(directory)
    database = await open_database(f"sqlite:///{directory / 'inventory.db'}", clock)
    try:
        yield CertificateAuthority(made, database, clock, SystemEntropy())
    finally:
        await database.close()


async def _issue(
    directory: Path, request: CertificateRequest, kind: Kind, names: list[x509.GeneralName], lifetime: timedelta | None
) -> tuple[Certificate, ...]:
    async with _opened(directory) as ca:
        profile = _PROFILES[kind]
        return await ca.issue(request, _OPERATOR, profile, san=names, lifetime=lifetime or _DEFAULT_LIFETIME)


def _read_csr(path: Path) -> CertificateRequest:
    with about(path):
        data = read_file(path, 2 * MAX_CSR_BYTES)
        if len(data) > 2 * MAX_CSR_BYTES:
            raise CsrTooLargeError(size=path.stat().st_size)
        if b"-----BEGIN CERTIFICATE-----" in data:
            raise CsrMalformedError(detail="it is a certificate, not a request for one")
        return parse_csr(unarmor(data))


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        write_private(path, pem)
    except FileExistsError as error:
        raise FileExistsAlreadyError(path=path) from error


def _write_chain(chain: tuple[Certificate, ...], out: Path | None, as_json: bool) -> None:
    """Write leaf and intermediates; a root is trusted by being known, never by being sent."""
    sent = [certificate for certificate in chain if not certificate.is_self_signed]
    text = "".join(certificate.pem() for certificate in sent)
    if out is not None or not as_json:
        write_result(out, text)
    if as_json or out is not None:
        row: dict[str, Any] = certificate_row(chain[0])
        if out is not None:
            row["file"] = str(out)
        if as_json:
            row["pem"] = text
        emit(as_json, row)


def _show_hierarchy(directory: Path, made: Hierarchy, as_json: bool) -> None:
    for role, issuer in (("root", made.root), ("issuing", made.issuing)):
        if role == "issuing" and issuer.certificate == made.root.certificate:
            continue
        emit(as_json, {"ca": role, **certificate_row(issuer.certificate), "file": str(directory / f"{role}.pem")})


def _issued_row(one: Issued) -> dict[str, Any]:
    return {
        "device_id": one.device_id,
        **certificate_row(one.certificate),
        "profile": one.profile,
        "revoked_at": one.revoked_at.isoformat() if one.revoked_at else None,
        "revocation_reason": one.revocation_reason.value if one.revocation_reason else None,
    }


def _file_of(found: list[Issued]) -> str:
    """Return the file with one of these certificates, where `ca issue` puts it; else FILE, for whoever knows it."""
    for one in found:
        path = Path(f"{_file_name(one.device_id or '')}.cert.pem")
        with suppress(OSError, BirthmarkError):
            if parse_bundle(path.read_bytes())[0] == one.certificate:
                return shlex.quote(str(path))
    return "FILE"


def _file_name(name: str) -> str:
    return "".join(char if char.isalnum() or char in "-_." else "_" for char in name).lstrip(".") or "_"
