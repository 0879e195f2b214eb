"""A private key in a PKCS#11 token. Operations that the token lacks (hashing for ECDSA) run in software."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import pkcs11
from asn1crypto import core
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509 import load_der_x509_certificate
from pkcs11 import exceptions as p11
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.mechanisms import MGF, KeyType, Mechanism
from pkcs11.util.ec import encode_ec_public_key, encode_ecdsa_signature, encode_named_curve_parameters
from pkcs11.util.rsa import encode_rsa_public_key

from birthmark.keys.errors import KeyUnsupportedError, PublicKeyMissingError
from birthmark.keys.key_handle import PublicKey, Scheme
from birthmark.keys.pkcs11_token import Pkcs11Token, bytes_of, text_of
from birthmark.keys.pkcs11_uri import Pkcs11Uri

# Set sensitive and not extractable explicitly, because token defaults differ.
_GUARDED = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False, Attribute.PRIVATE: True}
_SIGN = pkcs11.MechanismFlag.SIGN | pkcs11.MechanismFlag.VERIFY


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A private key in a PKCS#11 token."""

    token: Pkcs11Token
    label: str
    key_id: bytes
    public_key: PublicKey
    _private_key: Any = field(repr=False)

    @classmethod
    def find(cls, token: Pkcs11Token, *, label: str | None = None, key_id: bytes | None = None) -> "TokenKey":
        """Return the key with this label (either byte order) or id; it owns `token` and closes it."""
        key = token.find_private_key(label=label, key_id=key_id)
        with token.session() as session:
            name, number = text_of(key, Attribute.LABEL), bytes_of(key, Attribute.ID)
            return cls(token, name, number, _public_key(session, key, name, number), key)

    def sign(self, data: bytes, scheme: Scheme) -> bytes:
        is_ec = isinstance(self.public_key, ec.EllipticCurvePublicKey)
        if is_ec is not scheme.is_ec:
            raise KeyUnsupportedError(where=self.describe(), scheme=scheme)
        with self.token.session():
            if is_ec:
                # Hash here: few tokens support ECDSA with a hash, and some write flash for each part of a digest.
                digest = hashlib.new(scheme.hash.name, data).digest()
                return encode_ecdsa_signature(self._private_key.sign(digest, mechanism=Mechanism.ECDSA))
            if scheme is Scheme.RSA_PSS_SHA256:
                salted = (Mechanism.SHA256, MGF.SHA256, 32)
                return bytes(
                    self._private_key.sign(data, mechanism=Mechanism.SHA256_RSA_PKCS_PSS, mechanism_param=salted)
                )
            mechanism = Mechanism[f"{scheme.hash.name.upper()}_RSA_PKCS"]
            return bytes(self._private_key.sign(data, mechanism=mechanism))

    @property
    def uri(self) -> Pkcs11Uri:
        key_id = self.key_id or None
        return Pkcs11Uri(
            token=self.token.info.label, object=self.label or None, id=None if self.label else key_id, type="private"
        )

    def describe(self) -> str:
        return str(self.uri)

    def close(self) -> None:
        self.token.close()


def generate_signing_key(token: Pkcs11Token, label: str) -> PublicKey:
    """Generate a non-extractable, sign-only P-256 key in the token; return its public key."""
    with token.session() as session:
        curve = {Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1")}
        parameters = session.create_domain_parameters(KeyType.EC, curve, local=True)
        parameters.generate_keypair(store=True, label=label, capabilities=_SIGN, private_template=_GUARDED)
    return TokenKey.find(token, label=label).public_key


def _public_key(session: pkcs11.Session, key: Any, label: str, key_id: bytes) -> PublicKey:
    """Return the public key: from the private object, a public object, or a certificate of the same name."""
    if key.key_type is KeyType.RSA:
        return _loaded(encode_rsa_public_key(key), label)
    if key.key_type is not KeyType.EC:
        raise KeyUnsupportedError(where=f"key '{label}'", scheme="any scheme")
    same_name = {Attribute.LABEL: label} if label else {Attribute.ID: key_id}
    publics = session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.KEY_TYPE: KeyType.EC} | same_name)
    for candidate in (*publics, key):
        try:
            return _loaded(encode_ec_public_key(candidate), label)
        except (p11.PKCS11Error, ValueError, TypeError):
            continue
    for item in session.get_objects({Attribute.CLASS: ObjectClass.CERTIFICATE} | same_name):
        certificate = load_der_x509_certificate(cut_der(bytes_of(item, Attribute.VALUE)))
        public_key = certificate.public_key()
        if isinstance(public_key, ec.EllipticCurvePublicKey):
            return public_key
    raise PublicKeyMissingError(where=f"key '{label}'")


def _loaded(der: bytes, label: str) -> PublicKey:
    public_key = load_der_public_key(der)
    if not isinstance(public_key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise KeyUnsupportedError(where=f"key '{label}'", scheme="any scheme")
    return public_key


def cut_der(value: bytes) -> bytes:
    """Return the outermost DER value without trailing bytes: chips pad certificates with zeros."""
    return bytes(core.Any.load(value).dump()) if value else b""
