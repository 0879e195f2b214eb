"""Reference keys of the SE050 family: files in private key format that only name an object in the chip.

EC:  the private scalar is `10 00…00 | object id (4) | A5A6B5B6A5A6B5B6 | class | index`; the public point is real. RSA:
the modulus and public exponent are real; prime1 is 1, prime2 the object id, the coefficient 0xA5A6B5B6. OpenSSL loads
them without an error, even where no engine supports them; the handshake then fails at the peer. So every file is
checked before use. Source: NXP's middleware, as in its `ssscli refpem`.
"""

import re
from base64 import b64decode

from asn1crypto import keys, pem
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from birthmark.keys.errors import KeyUnsupportedError
from birthmark.pki.extension_parser import ASN1_TROUBLE

MAX_KEY_FILE_BYTES = 64 * 1024
_MAGIC = bytes.fromhex("A5A6B5B6A5A6B5B6")
_RSA_MAGIC = 0xA5A6B5B6
_KEY_PAIR = 0x10
_CURVES = {"secp256r1": ec.SECP256R1(), "secp384r1": ec.SECP384R1(), "secp521r1": ec.SECP521R1()}
_TAIL_BYTES = 4 + len(_MAGIC) + 2
_BLOCK = re.compile(rb"-----BEGIN ((?:EC |RSA )?PRIVATE KEY)-----([A-Za-z0-9+/=\s]*)-----END \1-----")


def render_reference_key(public_key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, object_id: int) -> str:
    """Return the PEM of a reference key for `object_id` with the public key `public_key`."""
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return bytes(pem.armor("EC PRIVATE KEY", _ec(public_key, object_id))).decode()
    if isinstance(public_key, rsa.RSAPublicKey):
        return bytes(pem.armor("RSA PRIVATE KEY", _rsa(public_key, object_id))).decode()
    raise KeyUnsupportedError(where="The key", scheme="any scheme")


def parse_reference_key(text: bytes) -> int | None:
    """Return the object id in a reference key PEM; None for other content."""
    if len(text) > MAX_KEY_FILE_BYTES:
        return None
    for block in _BLOCK.finditer(text):
        try:
            object_id = _object_id(block[1], b64decode(block[2]))
        except ASN1_TROUBLE:
            continue
        if object_id is not None:
            return object_id
    return None


def reference_public_key(text: bytes) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey | None:
    """Return the public key in a reference key PEM, which is real; None for other content."""
    if parse_reference_key(text) is None:
        return None
    for block in _BLOCK.finditer(text):
        try:
            return _public_key(block[1], b64decode(block[2]))
        except ASN1_TROUBLE:
            continue
    return None


def _ec(public_key: ec.EllipticCurvePublicKey, object_id: int) -> bytes:
    size = (public_key.curve.key_size + 7) // 8
    tail = object_id.to_bytes(4, "big") + _MAGIC + bytes((_KEY_PAIR, 0))
    scalar = bytes((_KEY_PAIR,)) + bytes(size - 1 - len(tail)) + tail
    info = keys.PublicKeyInfo.load(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    point = public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    key = keys.ECPrivateKey(
        {
            "version": "ecPrivkeyVer1",
            "private_key": int.from_bytes(scalar, "big"),
            "parameters": info["algorithm"]["parameters"],
            "public_key": keys.ECPointBitString(point),
        }
    )
    return bytes(key.dump())


def _rsa(public_key: rsa.RSAPublicKey, object_id: int) -> bytes:
    numbers = public_key.public_numbers()
    key = keys.RSAPrivateKey(
        {
            "version": "two-prime",
            "modulus": numbers.n,
            "public_exponent": numbers.e,
            "private_exponent": 1,
            "prime1": 1,
            "prime2": object_id,
            "exponent1": 1,
            "exponent2": 1,
            "coefficient": _RSA_MAGIC,
        }
    )
    return bytes(key.dump())


def _public_key(label: bytes, der: bytes) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    algorithm, body = _unwrapped(label, der)
    if algorithm == "rsa":
        key = keys.RSAPrivateKey.load(body)
        return rsa.RSAPublicNumbers(key["public_exponent"].native, key["modulus"].native).public_key()
    inner = keys.ECPrivateKey.load(body)
    # PKCS#8 has the curve outside, and may omit the point: such a file contains no public key.
    outer = keys.PrivateKeyInfo.load(der)["private_key_algorithm"]["parameters"] if label == b"PRIVATE KEY" else None
    curve = _CURVES[(inner["parameters"] if outer is None else outer).native]
    return ec.EllipticCurvePublicKey.from_encoded_point(curve, inner["public_key"].native)


def _unwrapped(label: bytes, der: bytes) -> tuple[str, bytes]:
    """Return the key type and the key without its PKCS#8 wrapper."""
    if label == b"PRIVATE KEY":
        inner = keys.PrivateKeyInfo.load(der)
        return inner["private_key_algorithm"]["algorithm"].native, inner["private_key"].contents
    return "ec" if label.startswith(b"EC") else "rsa", der


def _object_id(label: bytes, der: bytes) -> int | None:
    algorithm, der = _unwrapped(label, der)
    if algorithm == "ec":
        scalar: bytes = keys.ECPrivateKey.load(der)["private_key"].contents
        tail = scalar[-_TAIL_BYTES:]
        return int.from_bytes(tail[:4], "big") if tail[4:-2] == _MAGIC else None
    if algorithm == "rsa":
        key = keys.RSAPrivateKey.load(der)
        first, second = (int(key[name].native) for name in ("prime1", "prime2"))  # some writers swap them
        is_reference = key["coefficient"].native == _RSA_MAGIC and 1 in (first, second)
        return (second if first == 1 else first) & 0xFFFFFFFF if is_reference else None
    return None
