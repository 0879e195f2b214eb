"""`birthmark ca`: an operator's own certificate authority in a directory.

The directory holds the hierarchy (`birthmark.ca.hierarchy`) and the inventory of what it issued (`inventory.db`).
"""

import contextlib
import ipaddress
import re
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
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
from birthmark.cli.common import FileExistsAlreadyError, about, certificate_row, emit, read_file, write_result
from birthmark.cli.options import JsonOption, command, commands
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

app = commands(
    "Run a certificate authority of your own in a directory.", 'birthmark ca init --name "Example Gateways" --dir ca'
)
_DNS = re.compile(r"(?=.{1,253}$)(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")
_LIFETIME = re.compile(r"([1-9][0-9]{0,8})(s|min|h|d)")
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}

_OPERATOR = Principal(PrincipalKind.OPERATOR, "cli")
_DEFAULT_LIFETIME = timedelta(days=365)
_VERIFICATION_LIFETIME = timedelta(days=1)


def parse_lifetime(text: str) -> timedelta:
    """Return the duration in `20s`, `30min`, `12h` or `365d`."""
    if (found := _LIFETIME.fullmatch(text)) is None:
        raise typer.BadParameter("give a number and a unit: 20s, 30min, 12h or 365d")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


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


Out = Annotated[Path | None, typer.Option("--out", "-o", help="File to write; default is standard output.")]


@dataclass(frozen=True, slots=True)
class AuthorityOptions:
    """The CA of a directory, and how what it does is shown."""

    directory: Annotated[
        Path, typer.Option("--dir", envvar="BIRTHMARK_CA_DIR", help="The CA's directory.", file_okay=False)
    ] = Path("ca")
    as_json: JsonOption = False


@dataclass(frozen=True, slots=True)
class IssueOptions:
    """What is to be issued."""

    kind: Annotated[Kind, typer.Option("--profile", help="What the certificate is for.")] = Kind.DEVICE
    dns: Annotated[
        list[x509.GeneralName] | None,
        typer.Option(parser=parse_dns_name, metavar="NAME", help="DNS name or IP address of a server; repeatable."),
    ] = None
    lifetime: Annotated[
        timedelta | None,
        typer.Option(parser=parse_lifetime, metavar="TIME", help="20s, 30min, 12h or 365d (default: 365d)."),
    ] = None


@command(app, 'birthmark ca init --dir ca --name "Example Gateways"')
def init(
    authority: AuthorityOptions,
    name: Annotated[str, typer.Option(help="Your organization's name.")],
    flat: Annotated[bool, typer.Option(help="A root that signs devices itself, without an issuing CA.")] = False,
) -> None:
    """Make a root (20 years) and an issuing CA below it. Keys are encrypted files of mode 0600."""
    now, entropy = SystemClock().now(), SystemEntropy()
    _show_hierarchy(authority, hierarchy.create(authority.directory, name, now=now, entropy=entropy, flat=flat))


@command(app, "birthmark ca show device-1 --dir ca")
async def show(
    authority: AuthorityOptions,
    wanted: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Thumbprint, serial number or device id.")
    ] = None,
) -> None:
    """Show the CA's certificates and what it issued, or what it issued to ID."""
    async with _opened(authority.directory) as ca:
        found = await ca.latest() if wanted is None else await ca.search(wanted)
        if wanted is not None and not found:
            raise CertificateUnknownError(wanted=wanted)
    if wanted is None:
        _show_hierarchy(authority, ca.hierarchy)
    for one in found:
        if not authority.as_json:
            typer.echo()
        emit(authority.as_json, _issued_row(one))


@command(app, "birthmark ca sign device.csr --dir ca --out device.pem")
async def sign(
    authority: AuthorityOptions,
    wish: IssueOptions,
    csr: Annotated[Path, typer.Argument(help="Certificate request, PEM or DER, as `birthmark element csr` makes it.")],
    out: Out = None,
) -> None:
    """Sign a certificate request; writes the certificate with the chain it needs, leaf first."""
    only(wish.kind is Kind.SERVER, "with --profile server", dns=wish.dns)
    _write_chain(await _issue(authority.directory, _read_csr(csr), wish), out, authority.as_json)


@command(app, "birthmark ca issue gateway-7 --dir ca --out-dir gateway-7")
async def issue(
    authority: AuthorityOptions,
    wish: IssueOptions,
    name: Annotated[str, typer.Argument(help="Common name: the device id or host name.")],
    out_dir: Annotated[Path, typer.Option(help="Where NAME.key.pem and NAME.cert.pem go.")] = Path(),
) -> None:
    """Make a key in a file and a certificate for it: for servers, and for devices without a secure element."""
    only(wish.kind is Kind.SERVER, "with --profile server", dns=wish.dns)
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder(subject_name=name_of(name)).sign(key, hashes.SHA256())
    parsed = parse_csr(request.public_bytes(serialization.Encoding.DER))
    path = out_dir / f"{_file_name(name)}.key.pem"
    if path.exists():
        raise FileExistsAlreadyError(path=path)
    chain = await _issue(authority.directory, parsed, wish)
    _write_key(path, key)
    _write_chain(chain, out_dir / f"{_file_name(name)}.cert.pem", authority.as_json)


@command(app, "birthmark ca verify-possession 3F9C…A1 --dir ca --out proof.pem", "verify-possession")
def verify_possession(
    authority: AuthorityOptions,
    code: Annotated[str, typer.Argument(help="The verification code (Azure) or registration code (AWS).")],
    level: Annotated[Level, typer.Option("--with", help="The CA that is put on record.")] = Level.ROOT,
    out: Out = None,
) -> None:
    """Prove to a cloud that you have the CA's key: writes a certificate for CODE, signed by it."""
    made = hierarchy.load(authority.directory)
    proof = prove_possession(
        code,
        made.root if level is Level.ROOT else made.issuing,
        ec.generate_private_key(ec.SECP256R1()).public_key(),
        serial=new_serial(SystemEntropy()),
        now=SystemClock().now(),
        lifetime=_VERIFICATION_LIFETIME,
    )
    _write_chain((proof,), out, authority.as_json)


@command(app, "birthmark ca revoke device-1 --reason keyCompromise --dir ca")
async def revoke(
    authority: AuthorityOptions,
    wanted: Annotated[str, typer.Argument(metavar="ID", help="Thumbprint, serial number or device id.")],
    reason: Annotated[
        RevocationReason, typer.Option(help="Why (RFC 5280 section 5.3.1).")
    ] = RevocationReason.UNSPECIFIED,
) -> None:
    """Revoke the certificates that fit ID and are not revoked yet. A device id means all of that device."""
    async with _opened(authority.directory) as ca:
        found = [one for one in await ca.search(wanted) if not one.is_revoked]
        if not found:
            raise CertificateUnknownError(wanted=wanted)
        for one in found:
            with suppress(AlreadyRevokedError):  # it went with an earlier one of the same key
                await ca.revocations.certificate(one.certificate.thumbprint, _OPERATOR, reason)
        found = await ca.search(wanted)
    for one in found:
        emit(authority.as_json, _issued_row(one))
    if not authority.as_json and reason is not RevocationReason.SUPERSEDED:
        why = "" if reason is RevocationReason.UNSPECIFIED else f" --reason {reason.value}"
        told = f"birthmark est revoke --key-of {_file_of(found)}{why}"
        typer.echo(f"A Birthmark server is told by: `{told}`", err=True)


@command(app, "birthmark ca crl --dir ca --out ca.crl")
async def crl(
    authority: AuthorityOptions,
    level: Annotated[Level, typer.Option("--of", help="Whose list.")] = Level.ISSUING,
    out: Out = None,
) -> None:
    """Write the revocation list (PEM). Brokers that take one want it again after each revocation."""
    async with _opened(authority.directory) as ca:
        issuer = ca.hierarchy.root if level is Level.ROOT else ca.hierarchy.issuing
        made = x509.load_der_x509_crl(await ca.crl(issuer))
    text = made.public_bytes(serialization.Encoding.PEM).decode()
    next_update = made.next_update_utc.isoformat() if made.next_update_utc else None
    row = {"revoked": len(made), "next_update": next_update, "file": str(out) if out else None}
    _write(text, out, row, {**row, "crl": text}, authority.as_json)


@asynccontextmanager
async def _opened(directory: Path) -> AsyncIterator[CertificateAuthority]:
    clock = SystemClock()
    made = hierarchy.load(directory)
    database = await open_database(f"sqlite:///{directory / 'inventory.db'}", clock)
    try:
        yield CertificateAuthority(made, database, clock, SystemEntropy())
    finally:
        await database.close()


async def _issue(directory: Path, request: CertificateRequest, wish: IssueOptions) -> tuple[Certificate, ...]:
    async with _opened(directory) as ca:
        lifetime = wish.lifetime or _DEFAULT_LIFETIME
        return await ca.issue(request, _OPERATOR, _PROFILES[wish.kind], san=wish.dns or [], lifetime=lifetime)


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
    text = "".join(certificate.pem() for certificate in chain if not certificate.is_self_signed)
    row = certificate_row(chain[0]) | ({"file": str(out)} if out is not None else {})
    _write(text, out, row, {**row, "pem": text}, as_json)


def _write(text: str, out: Path | None, row: dict[str, Any], json_row: dict[str, Any], as_json: bool) -> None:
    """Write to the file, or to standard output where it holds nothing else; and say what was written."""
    if out is not None or not as_json:
        write_result(out, text)
    if as_json or out is not None:
        emit(as_json, json_row if as_json else row)


def _show_hierarchy(authority: AuthorityOptions, made: Hierarchy) -> None:
    for role, issuer in (("root", made.root), ("issuing", made.issuing)):
        if role == "issuing" and issuer.certificate == made.root.certificate:
            continue
        file = str(authority.directory / f"{role}.pem")
        emit(authority.as_json, {"ca": role, **certificate_row(issuer.certificate), "file": file})


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
