"""Root CA on another machine: requests are exported to it as files, and its responses are imported.

The request is a PKCS#10 CSR of a new CA, whose key is stored here as `PURPOSE.pending`. Its purpose, requested root and
expiry are signed text in the CSR (unstructuredName, RFC 2985 section 5.4.1). The response is PEM: the certificate, the
root certificate, and the root's CRL. Each side verifies the complete content before it accepts it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID

from birthmark import atomic_files
from birthmark.ca.ca_directory import CaExistsError, is_waiting, pending_purpose
from birthmark.ca.cross_certificates import install_links, links_in
from birthmark.ca.hierarchy_files import (
    BELOW,
    ROOT_LIST,
    alone_in,
    finish,
    name_below,
    organization_of,
    read_certificate,
    read_issuer,
)
from birthmark.ca.key_files import (
    key_pem,
    new_passphrase,
    read_key,
    read_private,
)
from birthmark.ca.passphrase_sources import BESIDE, Passphrase
from birthmark.ca.pkcs11_keys import TokenPlace, place_of
from birthmark.clock_and_entropy import Entropy
from birthmark.errors import BirthmarkError, InvalidRequestError, PolicyError
from birthmark.keys.key_handle import PublicKey
from birthmark.pki.certificate_profiles import Purpose
from birthmark.pki.certificates import Certificate, is_signed_by, parse_bundle, parse_thumbprint
from birthmark.pki.csr import CertificateRequest, parse_csr
from birthmark.pki.issuance import SigningKey
from birthmark.pki.names_and_registration_ids import text_of
from birthmark.pki.path_validation import check_dates
from birthmark.pki.pem_armor import unarmor
from birthmark.text_file_encodings import plain_text, unseen_in_pem

VALID = timedelta(days=30)
MAX_ANSWER_BYTES = 8 * 1024 * 1024
_VERSION = "birthmark-ca-1"
_NOT_OURS = "it is not one of `birthmark ca request`"
_FIRST_ASKED = f"{Purpose.DEVICES}.asked"
_LIST = b"-----BEGIN X509 CRL-----"
_MALFORMED = (ValueError, KeyError, TypeError, OverflowError, RecursionError)
"""Exceptions that parsing untrusted text may raise."""


class RequestRefusedError(PolicyError):
    """The root CA rejected the signing request."""

    code = "ca.request_refused"
    message = "The root rejected the signing request: {detail}"
    fix = (
        "Create a new request on the issuing CA's machine, and copy the file to this machine: `birthmark ca request "
        "--purpose {purpose} --dir ca --out {purpose}.csr`."
    )
    detail: str
    purpose: str


class AnswerRefusedError(PolicyError):
    """The signed response does not match the request."""

    code = "ca.answer_refused"
    message = "The signed response cannot be installed: {detail}"
    fix = (
        "Have the root sign the latest request: `birthmark ca root sign {purpose}.csr --dir root-ca --out "
        "{purpose}.answer`."
    )
    detail: str
    purpose: str


@dataclass(frozen=True, slots=True)
class CaRequest:
    """A request to a root, created by `read_request`."""

    request: CertificateRequest
    purpose: Purpose
    root: str
    """Thumbprint of the requested root in hex; empty for the first root of a new installation."""
    until: datetime


def ask(
    directory: Path,
    purpose: Purpose,
    *,
    now: datetime,
    entropy: Entropy,
    organization: str | None = None,
    passphrase: Passphrase | None = None,
    token: TokenPlace | None = None,
) -> str:
    """Return a CSR (PEM) for the issuing CA of a purpose; it replaces a pending one.

    The key is generated in `token`, or where the directory's existing keys are. With `organization`, the directory is a
    new one, without a root. Raise `CaExistsError`.
    """
    if organization is not None:
        _begin(directory, entropy, passphrase)
    with _alone(directory, passphrase) as secret:
        if (directory / f"{purpose}.pem").exists():
            raise CaExistsError(path=directory)
        root = "" if organization is not None or not _has_root(directory) else _root_of(directory).thumbprint.hex()
        title, tag = BELOW[purpose][0], entropy.token(3).hex().upper()
        place = token or _place(directory, secret)
        key = ec.generate_private_key(ec.SECP256R1()) if place is None else place.make(f"{purpose}-{tag}")
        name = organization or _organization(directory)
        says = {"is": _VERSION, "purpose": purpose, "root": root, "until": (now + VALID).isoformat(timespec="seconds")}
        request = (
            x509.CertificateSigningRequestBuilder(name_below(name, f"{title} {tag}"))
            .add_attribute(AttributeOID.UNSTRUCTURED_NAME, json.dumps(says).encode())
            .sign(key, hashes.SHA256())
        )
        text = request.public_bytes(Encoding.PEM)
        atomic_files.replace(directory / f"{purpose}.asked", text)
        atomic_files.replace(directory / f"{purpose}.pending", key_pem(key, secret))
        return text.decode()


def read_request(data: bytes, root: Certificate, now: datetime, name: str = "") -> CaRequest:
    """Parse a request to a root. Raise `RequestRefusedError`, with the purpose from the file `name`."""
    try:
        request = parse_csr(unarmor(data))
        says = _told(request)
        purpose, until = Purpose(says["purpose"]), datetime.fromisoformat(says["until"]).astimezone(UTC)
    except (InvalidRequestError, x509.AttributeNotFound, *_MALFORMED) as error:
        reason = (
            error.explain_cause() if isinstance(error, BirthmarkError) else "it is not one of `birthmark ca request`"
        )
        raise _refusal(reason.rstrip("."), name) from error
    if purpose not in BELOW:
        raise _refusal(f"no CA has the purpose '{purpose}'", name)
    if says["root"] not in {"", root.thumbprint.hex()}:
        detail = f"it is for the root {says['root'][:16]}…, but this root is {root.thumbprint.hex()[:16]}…"
        raise RequestRefusedError(detail=detail, purpose=purpose)
    if now > until:
        raise RequestRefusedError(detail=f"it was good until {until.isoformat()}", purpose=purpose)
    return CaRequest(request, purpose, says["root"], until)


def _refusal(detail: str, name: str) -> RequestRefusedError:
    """Return the error for a request without a purpose; the file name indicates it."""
    refusal = RequestRefusedError(detail=detail, purpose=name)
    if name not in BELOW:
        refusal.quote(
            fix="Create a new request for the same purpose on the issuing CA's machine, and carry the file here."
        )
    return refusal


def render_answer(certificate: Certificate, root: Certificate, crl: bytes) -> str:
    """Return the response file for the requester."""
    listed = x509.load_der_x509_crl(crl).public_bytes(Encoding.PEM).decode()
    return f"{certificate.pem()}{root.pem()}{listed}"


def install(
    directory: Path,
    data: bytes,
    now: datetime,
    *,
    root: str | None = None,
    passphrase: Passphrase | None = None,
    name: str = "",
) -> Purpose:
    """Install a response of the root: a CA, only its newest CRL, or the cross-certificates of two roots.

    `root` is its thumbprint, verified by a person; the file `name` indicates the purpose. Raise `AnswerRefusedError` or
    `LinksRefusedError`; then nothing has changed.
    """
    last, data = pending_purpose(directory, name), plain_text(data)
    try:
        listed = x509.load_pem_x509_crl(data) if _LIST in data else _list_of(data)
        if listed is not None and b"-----BEGIN CERTIFICATE-----" not in data:
            with alone_in(directory):
                return _install_list(directory, listed, last)
        bundle = parse_bundle(data)
    except (InvalidRequestError, ValueError) as error:
        detail = unseen_in_pem(data) or "it is not an answer of `birthmark ca root sign`"
        raise AnswerRefusedError(detail=detail, purpose=last) from error
    if (links := links_in(bundle)) is not None:
        install_links(directory, links)
        return Purpose.ROOT
    with _alone(directory, passphrase) as secret:
        return _install_ca(directory, bundle, listed, _waiting(directory, secret), now=now, root=root, last=last)


def _list_of(der: bytes) -> x509.CertificateRevocationList | None:
    """Return the CRL in DER data, as a distribution point serves it, or None."""
    try:
        return x509.load_der_x509_crl(der)
    except ValueError:
        return None


def _install_ca(
    directory: Path,
    bundle: Sequence[Certificate],
    listed: x509.CertificateRevocationList | None,
    waiting: Mapping[Purpose, SigningKey],
    *,
    now: datetime,
    root: str | None,
    last: str,
) -> Purpose:
    """Install a CA certificate signed by the root with its pending key."""
    certificate, *above = bundle
    purpose = next((one for one, key in waiting.items() if key.public_key() == certificate.public_key()), None)
    if purpose is None:
        raise AnswerRefusedError(detail="it does not match a pending request", purpose=last)
    anchor = above[-1] if above else certificate
    _check(certificate, anchor, purpose, now)
    wanted = _root_of(directory).thumbprint if _has_root(directory) else None
    if root is not None and anchor.thumbprint != parse_thumbprint(root):
        raise AnswerRefusedError(detail=f"its root is {anchor.thumbprint.hex()}", purpose=purpose)
    if wanted is not None and anchor.thumbprint != wanted:
        raise AnswerRefusedError(detail="its root differs from the installed root", purpose=purpose)
    if listed is not None and not listed.is_signature_valid(anchor.public_key()):  # type: ignore[arg-type]  # a CA has a key that signs
        raise AnswerRefusedError(detail="the CRL in it is not of its root", purpose=purpose)
    if listed is not None and (wanted is None or _is_newer(directory, listed)):
        atomic_files.replace(directory / ROOT_LIST, listed.public_bytes(Encoding.DER))
    # The pending file goes last, so that an interrupted run can be repeated at any point.
    atomic_files.replace(directory / f"{purpose}.key", read_private(directory / f"{purpose}.pending"))
    atomic_files.replace(directory / f"{purpose}.pem", certificate.pem().encode(), mode=0o644)
    atomic_files.replace(directory / "root.pem", anchor.pem().encode(), mode=0o644)
    (directory / f"{purpose}.asked").unlink(missing_ok=True)
    (directory / f"{purpose}.pending").unlink()
    return purpose


def _install_list(directory: Path, listed: x509.CertificateRevocationList, purpose: str) -> Purpose:
    """Install a CRL of the root if it is newer than the current one."""
    if not listed.is_signature_valid(_root_of(directory).public_key()):  # type: ignore[arg-type]  # CA keys can sign
        raise AnswerRefusedError(detail="the CRL is not of the root here", purpose=purpose)
    if not _is_newer(directory, listed):
        raise AnswerRefusedError(detail="a list as new as this one is here", purpose=purpose)
    atomic_files.replace(directory / ROOT_LIST, listed.public_bytes(Encoding.DER))
    return Purpose.ROOT


def _is_newer(directory: Path, listed: x509.CertificateRevocationList) -> bool:
    path = directory / ROOT_LIST
    return not path.exists() or _number(listed) > _number(x509.load_der_x509_crl(path.read_bytes()))


def _number(listed: x509.CertificateRevocationList) -> int:
    return listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def _check(certificate: Certificate, anchor: Certificate, purpose: Purpose, now: datetime) -> None:
    profile = BELOW[purpose][1]
    if not anchor.is_self_signed or not is_signed_by(certificate, anchor):
        raise AnswerRefusedError(detail="its certificate is not signed by the root in it", purpose=purpose)
    if not certificate.is_ca or certificate.extensions.path_length != profile.path_length:
        raise AnswerRefusedError(detail=f"its certificate is not that of a CA for {purpose}", purpose=purpose)
    for one in (certificate, anchor):
        try:
            check_dates(one, now)
        except BirthmarkError as error:
            raise AnswerRefusedError(detail=error.explain_cause().rstrip("."), purpose=purpose) from error


def _told(request: CertificateRequest) -> Mapping[str, str]:
    attributes = x509.load_der_x509_csr(request.der).attributes
    says = json.loads(attributes.get_attribute_for_oid(AttributeOID.UNSTRUCTURED_NAME).value)
    if not isinstance(says, dict) or says["is"] != _VERSION or not all(isinstance(one, str) for one in says.values()):
        raise ValueError(text_of(request.subject))
    return says


def _waiting(directory: Path, secret: bytes) -> dict[Purpose, SigningKey]:
    """Return the keys with a pending request; a key in a token is identified by its CSR."""
    found = {}
    for purpose in BELOW:
        if (path := directory / f"{purpose}.pending").exists():
            asked = directory / f"{purpose}.asked"
            known = x509.load_pem_x509_csr(asked.read_bytes()).public_key() if asked.exists() else None
            found[purpose] = read_key(path, secret, cast("PublicKey | None", known))
    return found


def _place(directory: Path, secret: bytes) -> TokenPlace | None:
    """Return the token that has the directory's keys; None for files."""
    there = next((one for one in BELOW if (directory / f"{one}.pem").exists()), None)
    if there is not None:
        return place_of(read_issuer(directory, there, secret).private_key)
    return next((place_of(key) for key in _waiting(directory, secret).values()), None)


def _begin(directory: Path, entropy: Entropy, passphrase: Passphrase | None) -> None:
    # A run that was killed before it stored its key has sent no request, and starts over.
    begun = {BESIDE, _FIRST_ASKED}
    if directory.exists() and any(one.name not in begun for one in directory.iterdir()):
        raise CaExistsError(path=directory)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (passphrase is None or passphrase.is_in_key_directory) and not (directory / BESIDE).exists():
        atomic_files.create(directory / BESIDE, new_passphrase(entropy) + b"\n")


@contextmanager
def _alone(directory: Path, passphrase: Passphrase | None) -> Iterator[bytes]:
    """Lock the directory between read and write, and yield the passphrase of its keys."""
    given = passphrase or Passphrase(directory)
    if not given.is_in_key_directory or not directory.is_dir():
        given.reveal()  # before the lock: a user may have to type it, and others must not wait that long
    with alone_in(directory):
        finish(directory)
        yield given.reveal()


def _has_root(directory: Path) -> bool:
    return (directory / "root.pem").exists()


def _root_of(directory: Path) -> Certificate:
    return read_certificate(directory, Purpose.ROOT)


def waits_for_root(directory: Path) -> bool:
    """Return whether an installation without a root has requested its first CA."""
    return not _has_root(directory) and (directory / _FIRST_ASKED).exists() and is_waiting(directory)


def _organization(directory: Path) -> str:
    if waits_for_root(directory):  # the first request has it
        return organization_of(x509.load_pem_x509_csr((directory / _FIRST_ASKED).read_bytes()).subject)
    return organization_of(_root_of(directory).subject)
