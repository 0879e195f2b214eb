"""A station's key and certificate: created at first use, or installed before by its owner.

The key is a file of mode 0600, or a file with the `pkcs11:` URI of a P-256 key in a token. The certificate is
self-signed or issued by any CA.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from birthmark import atomic_files
from birthmark.clock_and_entropy import Entropy
from birthmark.keys.cryptography_key_adapter import as_private_key
from birthmark.keys.file_key import FileKey, read_key_file
from birthmark.keys.key_handle import PublicKey, Scheme
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_key import TokenKey
from birthmark.keys.pkcs11_library_lifecycle import find_softhsm
from birthmark.keys.pkcs11_token import Pkcs11Token
from birthmark.keys.pkcs11_uri import Pkcs11Uri, parse_pkcs11_uri
from birthmark.keys.pkcs11_uri_files import uri_in
from birthmark.manifests.bundle.chip_intake_errors import StationUnusableError
from birthmark.manifests.bundle.chip_proof_rules import station_name
from birthmark.manifests.bundle.line_format import is_name
from birthmark.pki.certificate_profiles import CertificateProfile
from birthmark.pki.certificates import Certificate, parse_any
from birthmark.pki.fast_certificate_parser import P256_SPKI
from birthmark.pki.issuance import new_serial, self_signed
from birthmark.pki.names_and_registration_ids import name_of

_STATION = CertificateProfile("intake_station", timedelta(days=20 * 365))


@dataclass(frozen=True, slots=True)
class StationIdentity:
    """A station's signing identity."""

    name: str
    certificate: Certificate
    sign: Callable[[bytes], bytes] = field(repr=False)
    """Returns an ES256 signature as DER."""


def open_identity(directory: Path, name: str, now: datetime, entropy: Entropy, *, is_new: bool) -> StationIdentity:
    """Return the identity in a directory; create missing parts if the station `is_new`.

    Raise `StationUnusableError`, or a key file's or token's error.
    """
    key_file, certificate_file = directory / "station.key", directory / "station.pem"
    if not key_file.exists():
        if not is_new or certificate_file.exists():
            raise StationUnusableError(directory=directory, detail="station.key is missing")
        made = ec.generate_private_key(ec.SECP256R1())
        atomic_files.replace(key_file, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    if not certificate_file.exists():
        if not is_new:
            raise StationUnusableError(directory=directory, detail="station.pem is missing")
        with_key = as_private_key(_handle(key_file))
        own = self_signed(_STATION, name_of(name), with_key, serial=new_serial(entropy), now=now)
        atomic_files.replace(certificate_file, own.pem().encode(), 0o644)
    certificate = parse_any(certificate_file.read_bytes())
    handle = _handle(key_file)
    if not certificate.spki_der.startswith(P256_SPKI):
        raise StationUnusableError(directory=directory, detail="its key is not of the curve P-256")
    if handle.public_key != certificate.public_key():
        raise StationUnusableError(directory=directory, detail="station.key is not the key of station.pem")
    called = station_name(certificate)
    if not is_name(called):
        raise StationUnusableError(
            directory=directory, detail=f"'{called[:80]}' is not a valid station name for a bundle"
        )
    return StationIdentity(called, certificate, lambda data: handle.sign(data, Scheme.ECDSA_SHA256))


def _handle(path: Path) -> "FileKey | _InToken":
    uri = uri_in(read_key_file(path)[0])
    return FileKey.load(path) if uri is None else _InToken.of(parse_pkcs11_uri(uri))


@dataclass(frozen=True, slots=True)
class _InToken:
    """A key in a token that is opened for each signature: the chips usually use another library."""

    uri: Pkcs11Uri
    public_key: PublicKey

    @classmethod
    def of(cls, uri: Pkcs11Uri) -> "_InToken":
        key = _find(uri)
        try:
            return cls(uri, key.public_key)
        finally:
            key.close()

    def sign(self, data: bytes, scheme: Scheme) -> bytes:
        key = _find(self.uri)
        try:
            return key.sign(data, scheme)
        finally:
            key.close()

    def describe(self) -> str:
        return str(self.uri)

    def close(self) -> None:
        """Do nothing: no resource is held open."""


def _find(uri: Pkcs11Uri) -> TokenKey:
    pin = None if uri.pin_source is None else Pin.from_file(uri.pin_source)
    token = Pkcs11Token.open(uri.module_path or find_softhsm(), label=uri.token, slot_id=uri.slot_id, pin=pin)
    return TokenKey.find(token, label=uri.object, key_id=uri.id)
