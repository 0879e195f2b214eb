"""TPM 2.0 public keys as sent by devices (TPM 2.0 Library, part 2, section 12.2).

In: TPM2B_PUBLIC, at most MAX_PUBLIC_BYTES, of a decryption key: an endorsement or storage root key.

Out: a `TpmPublic`: the key, its TPM name, and the symmetric cipher it specifies.
"""

import hashlib
from base64 import b64encode
from dataclasses import dataclass
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from birthmark.errors import InvalidRequestError
from birthmark.pki.single_certificate_checks import has_roca_pattern

MAX_PUBLIC_BYTES = 1024
ALG_RSA, ALG_ECC, ALG_AES, ALG_CFB, ALG_NULL = 0x0001, 0x0023, 0x0006, 0x0043, 0x0010
RESTRICTED, DECRYPT, SIGN = 1 << 16, 1 << 17, 1 << 18
HASHES = {0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}
_CURVES: dict[int, ec.EllipticCurve] = {0x0003: ec.SECP256R1(), 0x0004: ec.SECP384R1(), 0x0005: ec.SECP521R1()}
_RSA_BITS = frozenset({2048, 3072, 4096})
_AES_BITS = frozenset({128, 256})
_EXPONENT = 65537

TpmKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


class TpmKeyInvalidError(InvalidRequestError):
    """The TPM's public key cannot be used."""

    code = "pki.tpm_key_invalid"
    message = "The {what} of the TPM cannot be used: {detail}"
    cause = "The {what} of the TPM cannot be used: {detail}."
    fix = (
        "Send the key in the TPM's format, base64-encoded TPM2B_PUBLIC. To print both keys on the device: `birthmark "
        "agent tpm`"
    )
    detail: str
    what: str


@dataclass(frozen=True, slots=True)
class TpmPublic:
    """Public part of a TPM key."""

    area: bytes
    """TPMT_PUBLIC, as the TPM hashes it."""

    hash_name: str
    aes_bits: int
    key: TpmKey

    @property
    def name(self) -> bytes:
        """The name of the object (part 1, section 16): its hash algorithm and the hash of its public area."""
        return self.area[2:4] + hashlib.new(self.hash_name, self.area).digest()

    @property
    def tpm2b(self) -> bytes:
        """The key as TPM2B_PUBLIC, as it was sent."""
        return sized(self.area)

    @property
    def base64(self) -> str:
        """The key in base64, as in Azure's interfaces."""
        return b64encode(self.tpm2b).decode()


def sized(data: bytes) -> bytes:
    """Return data as TPM2B: its length in two bytes, then the data."""
    return len(data).to_bytes(2, "big") + data


class TpmReader:
    """Reads fields sequentially; `what` names the data in errors."""

    def __init__(self, data: bytes, what: str, limit: int = MAX_PUBLIC_BYTES) -> None:
        self._data, self._at, self._what = data, 0, what
        if len(data) > limit:
            raise self.wrong(f"more than {limit} bytes")

    def wrong(self, detail: str) -> TpmKeyInvalidError:
        return TpmKeyInvalidError(detail=detail, what=self._what)

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) < size:
            raise self.wrong("it is truncated")
        self._at += size
        return taken

    def number(self, size: int = 2) -> int:
        return int.from_bytes(self.take(size), "big")

    def sized(self) -> bytes:
        return self.take(self.number())

    def must(self, expected: int, detail: str) -> None:
        if self.number() != expected:
            raise self.wrong(detail)

    @property
    def is_at_end(self) -> bool:
        return self._at == len(self._data)

    def end(self) -> None:
        if not self.is_at_end:
            raise self.wrong("bytes follow it")


def parse_tpm_public(data: bytes, what: str) -> TpmPublic:
    """Parse the key in a TPM2B_PUBLIC; `what` names it in errors. Raise `TpmKeyInvalidError`."""
    outer = TpmReader(data, what)
    area = outer.sized()
    outer.end()
    fields = TpmReader(area, what)
    kind, hash_name = fields.number(), HASHES.get(fields.number())
    if hash_name is None:
        raise fields.wrong("its name algorithm is not SHA-256, SHA-384 or SHA-512")
    attributes = fields.number(4)
    if attributes & (RESTRICTED | DECRYPT | SIGN) != RESTRICTED | DECRYPT:
        raise fields.wrong("it is not a restricted decryption key, as endorsement and storage keys are")
    fields.sized()  # usage policy, which only the TPM evaluates
    aes_bits = _cipher(fields)
    if kind == ALG_RSA:
        key: TpmKey = _rsa(fields)
    elif kind == ALG_ECC:
        key = _ecc(fields)
    else:
        raise fields.wrong("it is neither RSA nor elliptic curve")
    fields.end()
    return TpmPublic(area, hash_name, aes_bits, key)


def _cipher(fields: TpmReader) -> int:
    fields.must(ALG_AES, "it protects by another cipher than AES")
    bits = fields.number()
    if bits not in _AES_BITS:
        raise fields.wrong(f"AES with {bits} bits")
    fields.must(ALG_CFB, "AES in another mode than CFB")
    return bits


def _rsa(fields: TpmReader) -> rsa.RSAPublicKey:
    fields.must(ALG_NULL, "it has a scheme of its own")
    bits, exponent = fields.number(), fields.number(4) or _EXPONENT
    modulus = int.from_bytes(fields.sized(), "big")
    if bits not in _RSA_BITS or exponent != _EXPONENT or modulus.bit_length() != bits or not modulus & 1:
        raise fields.wrong("not an RSA key of 2048, 3072 or 4096 bits with exponent 65537")
    if has_roca_pattern(modulus):
        raise fields.wrong("its RSA key has the pattern of a broken key generator (ROCA, CVE-2017-15361)")
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _ecc(fields: TpmReader) -> ec.EllipticCurvePublicKey:
    fields.must(ALG_NULL, "it has a scheme of its own")
    curve = _CURVES.get(fields.number())
    fields.must(ALG_NULL, "it derives by a scheme of its own")
    x, y = (int.from_bytes(fields.sized(), "big") for _ in range(2))
    if curve is None:
        raise fields.wrong("its curve is not P-256, P-384 or P-521")
    try:
        return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except ValueError as error:
        raise fields.wrong("its point is not on its curve") from error
