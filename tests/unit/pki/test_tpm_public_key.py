"""Public keys of TPMs: what is read, what is refused."""

import base64
import contextlib
import hashlib
import math

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import example, given
from hypothesis import strategies as st

from birthmark.dps.wire import TpmAttestation, parse_tpm
from birthmark.pki.tpm_importable_key import parse_sealed, seal_hmac_key
from birthmark.pki.tpm_public_key import MAX_PUBLIC_BYTES, TpmKeyInvalidError, parse_tpm_public, sized
from support.chips.tpm_vectors import ECC_EK, ECC_SRK, RSA_EK, RSA_SRK
from support.fakes import SeededEntropy

ALL = (RSA_EK, RSA_SRK, ECC_EK, ECC_SRK)


def public(data: bytes) -> object:
    return parse_tpm_public(data, "endorsement key")


@pytest.mark.parametrize("data", ALL)
def test_a_key_as_a_tpm_gives_it_is_read_and_given_back(data: bytes) -> None:
    key = parse_tpm_public(data, "key")
    assert key.tpm2b == data
    assert (key.hash_name, key.aes_bits) == ("sha256", 128)
    assert key.name == b"\x00\x0b" + hashlib.sha256(data[2:]).digest()


def test_both_kinds_of_keys_are_known() -> None:
    assert isinstance(parse_tpm_public(RSA_EK, "key").key, rsa.RSAPublicKey)
    assert isinstance(parse_tpm_public(ECC_EK, "key").key, ec.EllipticCurvePublicKey)


def test_a_key_that_may_sign_is_no_endorsement_key() -> None:
    spoiled = bytearray(RSA_EK)
    spoiled[7] |= 0x04
    with pytest.raises(TpmKeyInvalidError, match="decryption key"):
        public(bytes(spoiled))


def test_a_key_of_the_broken_generator_is_refused() -> None:
    primes = (2, 11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
    step = math.prod(primes)
    weak = ((1 << 2047) // step + 1) * step + 1  # one modulo every small prime
    with pytest.raises(TpmKeyInvalidError, match="ROCA"):
        public(RSA_EK[:-256] + weak.to_bytes(256, "big"))


def test_a_point_that_is_not_on_the_curve_is_refused() -> None:
    with pytest.raises(TpmKeyInvalidError, match="curve"):
        public(ECC_EK[:-1] + bytes([ECC_EK[-1] ^ 1]))


def test_a_key_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(TpmKeyInvalidError, match="more than"):
        public(sized(bytes(MAX_PUBLIC_BYTES)))


@given(st.sampled_from(ALL), st.data())
def test_a_damaged_key_is_read_or_refused_and_nothing_else(data: bytes, draw: st.DataObject) -> None:
    spoiled = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        spoiled[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    spoiled = spoiled[: draw.draw(st.integers(0, len(data)))] if draw.draw(st.booleans()) else spoiled
    with contextlib.suppress(TpmKeyInvalidError):
        assert parse_tpm_public(bytes(spoiled), "key").tpm2b == bytes(spoiled)


@given(st.binary(max_size=300))
@example(b"")
@example(b"\xff\xff")
def test_any_bytes_are_a_sealed_key_or_refused(data: bytes) -> None:
    with contextlib.suppress(TpmKeyInvalidError):
        parse_sealed(data)


def test_a_sealed_key_has_the_fields_in_the_order_in_which_clients_take_them() -> None:
    endorsement, root = (parse_tpm_public(one, "key") for one in (RSA_EK, RSA_SRK))
    sealed = seal_hmac_key(b"k" * 32, endorsement, root, SeededEntropy())
    fields = parse_sealed(sealed)
    assert (len(fields.credential), len(fields.credential_secret), len(fields.duplicate_secret)) == (52, 256, 256)
    assert fields.public[:4] == b"\x00\x08\x00\x0b"
    assert sealed.endswith(sized(fields.public) + sized(b""))  # the vendor's clients want the last one to be there


def test_nothing_of_the_key_is_in_what_is_sealed() -> None:
    endorsement, root = (parse_tpm_public(one, "key") for one in (ECC_EK, ECC_SRK))
    assert b"k" * 8 not in seal_hmac_key(b"k" * 32, endorsement, root, SeededEntropy())


@pytest.mark.parametrize("form", ['"{}"', " {}\n", "'{}'"])
def test_an_endorsement_key_may_have_white_space_and_quotes(form: str) -> None:
    text = base64.encodebytes(RSA_EK).decode()
    assert parse_tpm(TpmAttestation(form.format(text))).endorsement == parse_tpm_public(RSA_EK, "key")
