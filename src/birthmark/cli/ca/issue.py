"""`birthmark ca sign` and `issue`: certificates by profile."""

import contextlib
import ipaddress
import os
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from birthmark import atomic_files
from birthmark.ca.service import profile_of
from birthmark.cli.ca.server_managed_ca import ServerCommand, by_another, by_est
from birthmark.cli.input_files import about, read_file
from birthmark.cli.option_checks_and_confirmation import only
from birthmark.cli.options.ca import OPERATOR, AuthorityOptions, Out, opened
from birthmark.cli.output.ca_certificate_files import file_name, write_chain
from birthmark.cli.output.command_output import FileExistsAlreadyError
from birthmark.durations import FORMS, lifetime_of
from birthmark.manifests.certificate_lists import is_table
from birthmark.pki.certificate_profiles import DEVICE, FOR_REQUESTS, SERVER, CertificateProfile
from birthmark.pki.certificates import Certificate, CertificateInvalidError, CertificateKeySwappedError, parse_der
from birthmark.pki.csr import MAX_CSR_BYTES, CertificateRequest, CsrMalformedError, CsrTooLargeError, parse_csr
from birthmark.pki.der import is_pkcs7, is_pkcs12
from birthmark.pki.names_and_registration_ids import name_of
from birthmark.pki.pem_armor import check_single_request, pem_in, unarmor
from birthmark.text_file_encodings import plain_text
from birthmark.untrusted_json_and_text import printable

_DNS = re.compile(r"(?=.{1,253}$)(\*\.)?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")
_YEAR = timedelta(days=365)
# Certificates from an operator's own CA live for a year, because no agent renews them daily.
_TABLES = {".csv", ".tsv"}
_BY_HAND = {DEVICE.name: _YEAR, SERVER.name: _YEAR}


def parse_lifetime(text: str) -> timedelta:
    """Return the duration in `20s`, `30min`, `12h` or `365d`."""
    try:
        return lifetime_of(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def parse_dns_name(text: str) -> x509.GeneralName:
    """Return a server's name or address as a subject alternative name (RFC 5280 section 4.2.1.6)."""
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(text))
    if _DNS.fullmatch(text) is None:
        raise typer.BadParameter(f"'{text[:80]}' is not a DNS name or an IP address")
    return x509.DNSName(text)


@dataclass(frozen=True, slots=True)
class IssueOptions:
    """Options of the certificate to issue."""

    profile: Annotated[
        str,
        typer.Option("--cert-profile", metavar="NAME", help=f"Use of the certificate: {', '.join(FOR_REQUESTS)}."),
    ] = "device"
    config: Annotated[
        Path | None, typer.Option(help="File with \\[ca.profiles.NAME] tables for your own profiles.")
    ] = None
    dns: Annotated[
        list[x509.GeneralName] | None,
        typer.Option(
            parser=parse_dns_name, metavar="NAME", help="DNS name or IP address of a server; may be repeated."
        ),
    ] = None
    lifetime: Annotated[
        timedelta | None,
        typer.Option(
            parser=parse_lifetime,
            metavar="DURATION",
            help=f"Lifetime of the certificate: {FORMS} (default: from the profile, or 365d).",
        ),
    ] = None


async def sign(
    authority: AuthorityOptions,
    wish: IssueOptions,
    csr: Annotated[Path, typer.Argument(help="Certificate request in PEM or DER, as written by `birthmark chip csr`.")],
    out: Out = None,
) -> None:
    """Sign a certificate request.

    Writes the certificate and its chain, leaf first.
    """
    profile = _profile(wish)
    write_chain(await _issue(authority, _read_csr(csr), profile, wish), out, authority.as_json)


async def issue(
    authority: AuthorityOptions,
    wish: IssueOptions,
    name: Annotated[str, typer.Argument(help="Common name: device ID or host name.")],
    out_dir: Annotated[Path, typer.Option(help="Directory for NAME.key.pem and NAME.cert.pem.")] = Path(),
) -> None:
    """Create a key file and a certificate for it.

    For servers and for devices without a secure element.

    An existing key is not replaced. A certificate without its key is renamed, not overwritten.
    """
    profile = _profile(wish)
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder(subject_name=name_of(name)).sign(key, hashes.SHA256())
    parsed = parse_csr(request.public_bytes(serialization.Encoding.DER))
    key_file, certificate_file = (out_dir / f"{file_name(name)}.{kind}.pem" for kind in ("key", "cert"))
    _check_new(key_file)
    chain = await _issue(authority, parsed, profile, wish)
    _write_key(key_file, key)
    _keep_aside(certificate_file)
    write_chain(chain, certificate_file, authority.as_json)


async def _issue(
    authority: AuthorityOptions, request: CertificateRequest, profile: CertificateProfile, options: IssueOptions
) -> tuple[Certificate, ...]:
    async with opened(authority, _instead(request, profile)) as ca:
        lifetime = options.lifetime or _BY_HAND.get(profile.name)
        return await ca.issue(request, OPERATOR, profile, san=options.dns or [], lifetime=lifetime)


def _instead(request: CertificateRequest, profile: CertificateProfile) -> ServerCommand:
    if profile.name == DEVICE.name:
        return by_est(request.subject_cn or "device-1")
    return by_another(f"A certificate of the profile {profile.name}", directory="own-ca")


def _profile(options: IssueOptions) -> CertificateProfile:
    profiles = FOR_REQUESTS
    if options.config is not None:
        from birthmark.server.settings import read_settings

        profiles = read_settings(options.config, {}).profiles
    profile = profile_of(profiles, options.profile)
    only(profile.takes_subject_alt_name, "with --cert-profile server", dns=options.dns)
    return profile


def _read_csr(path: Path) -> CertificateRequest:
    with about(path):
        data = read_file(path, 2 * MAX_CSR_BYTES)
        if len(data) > 2 * MAX_CSR_BYTES:
            raise CsrTooLargeError(size=path.stat().st_size)
        if path.suffix.lower() in _TABLES or (b"-----BEGIN " not in data and is_table(data)):
            raise CsrMalformedError(detail="it is a table (CSV)")
        der = unarmor(data)
        try:
            request = parse_csr(der)
        except CsrMalformedError as error:
            raise _what_else(der, is_key=b"PRIVATE KEY-----" in data) or error from error
        check_single_request(pem_in(plain_text(data)), b"CERTIFICATE")  # `certutil -encode` uses it for requests
        return request


def _what_else(der: bytes, *, is_key: bool) -> CsrMalformedError | None:
    """Return the error for a file that is not a CSR: `certutil -encode` labels any content as a certificate."""
    if is_pkcs12(der) or is_pkcs7(der):
        return CsrMalformedError(detail="it is PKCS#12 or PKCS#7, not a certificate request")
    try:
        parse_der(der)
    except CertificateInvalidError as error:
        is_key = is_key or isinstance(error, CertificateKeySwappedError)
        return CsrMalformedError(detail="it is a private key, not a certificate request") if is_key else None
    return CsrMalformedError(detail="it is a certificate, not a certificate request")


def _check_new(path: Path) -> None:
    """Raise `FileExistsAlreadyError` before a certificate is issued."""
    if os.path.lexists(path):
        raise FileExistsAlreadyError(path=path)


def _keep_aside(path: Path) -> None:
    """Rename an existing file of that name, and report it."""
    if os.path.lexists(path):
        atomic_files.move(path, aside := atomic_files.backup_path(path))
        typer.echo(printable(f"The certificate of an earlier key is {aside} now."), err=True)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        atomic_files.create(path, pem)
    except FileExistsError as error:
        raise FileExistsAlreadyError(path=path) from error
