"""Custom server certificate: two PEM files, read at startup and again after every change.

In: the chain, leaf first, and its private key without a passphrase.

Out: chain and key for `FreshContext`. Raises `OwnCertificateError`, which names the file.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from OpenSSL import SSL

from birthmark.ca.service import CertificateAuthority
from birthmark.clock_and_entropy import Clock
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.keys.errors import KeyFileIsPkcs12Error
from birthmark.keys.file_key import check_no_pkcs12, find_conversion_command, pem_of_key
from birthmark.net.tls import server_context
from birthmark.pki.certificate_profiles import SERVER
from birthmark.pki.certificates import Certificate, CertificateIsPkcs12Error, parse_bundle
from birthmark.pki.der import is_der, is_pkcs7
from birthmark.pki.hostname_verification import check_host
from birthmark.pki.issuance import SigningKey
from birthmark.pki.single_certificate_checks import ChainError
from birthmark.server.server_certificate_renewal import FreshContext
from birthmark.text_file_encodings import unseen_in_pem

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 30.0


async def run_recording_loop(authority: CertificateAuthority, context: FreshContext) -> None:
    """Record the server's certificate and CAs, and each replacement. Never returns."""
    noted = None
    while True:
        if (leaf := context.leaf) != noted:
            try:
                await authority.note_issuers()
                await authority.note(SERVER, leaf)
                noted = leaf
            except BirthmarkError as error:
                log.warning("server.certificate_not_noted", extra={"reason": error.explain_cause()})
        await asyncio.sleep(_LOOK_EVERY_S)


_WRAPPED = (CertificateIsPkcs12Error, KeyFileIsPkcs12Error)


_PEM = re.compile(rb"^-----BEGIN CERTIFICATE-----\s*\n", re.MULTILINE)
_IN_ANOTHER_FORM = (
    "Name a certificate and its own key in the configuration: the dates must include today, and the names {host}, by "
    "which clients reach the server (`host` in the configuration)."
)
"""Fix text for files that OpenSSL's tools cannot read, so that no command of theirs helps."""


class OwnCertificateError(UnavailableError):
    """The server certificate cannot be used."""

    code = "server.certificate_unusable"
    cause = "The server certificate {path} cannot be used: {detail}."
    fix = (
        "Check both files: `openssl x509 -in {certificate} -noout -ext subjectAltName -dates -pubkey` and `openssl "
        "pkey -in {key} -pubout` must show the same public key. The dates must include today, and the names must "
        "include {host}, the name that clients use for the server (`host` in the configuration)."
    )
    certificate: Path
    detail: str
    host: str
    key: Path
    path: object


class OwnCertificate:
    """Loads the pair; `stamp` cheaply detects a changed file."""

    def __init__(self, certificate: Path, key: Path, clock: Clock, host: str) -> None:
        self._certificate = certificate
        self._key = key
        self._clock = clock
        self._host = host

    def stamp(self) -> object:
        """Return a value that differs after every change of a file."""
        return tuple(self._stamp(path) for path in (self._certificate, self._key))

    def load(self) -> tuple[Sequence[Certificate], SigningKey]:
        """Return chain and key. Raise `OwnCertificateError`."""
        chain, key = self._read()
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise self._refusal(self._key, "its key is not RSA or EC")
        leaf, now = chain[0], self._clock.now()
        if key.public_key() != leaf.public_key():
            raise self._refusal(self._key, _difference(leaf.public_key(), key.public_key()))
        if not leaf.not_before <= now <= leaf.not_after:
            raise self._refusal(self._certificate, f"it is valid from {leaf.not_before} to {leaf.not_after}")
        try:
            check_host(leaf, self._host)
        except ChainError as error:
            has = error.detail.rpartition(": ")[2]
            raise self._refusal(self._certificate, f"it is not for the server's host {self._host}: {has}") from error
        try:
            server_context([c.parsed for c in chain], key)
        except SSL.Error as error:
            raise self._refusal(self._certificate, "OpenSSL rejects it: its key may be too small") from error
        return chain, key

    def _read(self) -> tuple[Sequence[Certificate], PrivateKeyTypes]:
        try:
            return parse_bundle(self._certificate.read_bytes()), _parse_key(self._key)
        except OSError as error:
            raise self._refusal(error.filename, (error.strerror or "it cannot be read").lower()) from error
        except BirthmarkError as error:
            path = self._key if isinstance(error, KeyFileIsPkcs12Error) else self._certificate
            refusal = self._refusal(path, error.explain_cause().rstrip("."))
            if isinstance(error, _WRAPPED):
                error.add_facts(path=path)
                refusal.quote(fix=f"{error.explain_fix()} Then set the paths of these files in the configuration.")
            raise refusal from error
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            seen = unseen_in_pem(pem_of_key(self._key.read_bytes()))
            detail = seen or "it is not a private key in PEM form without a passphrase"
            raise self._refusal(self._key, detail) from error

    def _refusal(self, path: object, detail: str) -> OwnCertificateError:
        refusal = OwnCertificateError(
            path=path, detail=detail, certificate=self._certificate, key=self._key, host=self._host
        )
        with suppress(OSError):
            if not _is_for_openssl(self._certificate) or find_conversion_command(self._key) is not None:
                refusal.quote(fix=_IN_ANOTHER_FORM.format(host=self._host))
        return refusal

    @staticmethod
    def _stamp(path: Path) -> object:
        try:
            seen = path.stat()
        except OSError:
            return None
        return (seen.st_mtime_ns, seen.st_size, seen.st_ino)


def _is_for_openssl(certificate: Path) -> bool:
    raw = certificate.read_bytes()
    return (is_der(raw) and not is_pkcs7(raw)) or _PEM.search(raw) is not None


def _difference(types: PublicKeyTypes, key_types: PublicKeyTypes) -> str:
    """Return the difference of a pair: the SHA-256 of each public key's DER."""
    one, other = (
        hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()
        for key in (types, key_types)
    )
    return (
        f"it is not the key of the first certificate: the certificate's public key has the SHA-256 {one}, but this "
        f"key has {other}"
    )


def _parse_key(path: Path) -> PrivateKeyTypes:
    text = pem_of_key(path.read_bytes())
    check_no_pkcs12(path, text)
    return load_pem_private_key(text, None)
