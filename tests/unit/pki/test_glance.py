"""What is cut out of a certificate is what the library reads, or nothing."""

from hypothesis import given
from hypothesis import strategies as st

from birthmark.pki import profiles
from birthmark.pki.certificates import P256_SPKI, CertificateInvalidError, parse_der
from birthmark.pki.glance import glance, is_signed_with
from pki_builders import a_ca, a_device, a_key

ISSUER = a_ca("Signer")
DEVICE = a_device(ISSUER, "device-1", key=a_key()).certificate


def test_the_plain_case_is_cut_as_the_library_reads_it() -> None:
    seen = glance(DEVICE.der)
    assert seen is not None
    assert seen.common_name == DEVICE.subject_cn
    assert P256_SPKI + seen.point == DEVICE.spki_der
    assert seen.issuer_der == DEVICE.issuer_der
    assert is_signed_with(seen, ISSUER.private_key.public_key())  # type: ignore[arg-type]  # the builders make P-256
    assert not is_signed_with(seen, a_key().public_key())


def test_a_ca_is_left_to_the_library() -> None:
    assert glance(ISSUER.certificate.der) is None
    assert glance(a_ca("Below", parent=ISSUER, profile=profiles.ISSUING_CA).certificate.der) is None


@given(st.integers(min_value=0, max_value=len(DEVICE.der) - 1), st.integers(min_value=1, max_value=255))
def test_a_changed_byte_is_seen_by_the_signature_or_by_the_reader(place: int, change: int) -> None:
    changed = bytearray(DEVICE.der)
    changed[place] ^= change
    seen = glance(bytes(changed))
    if seen is not None:
        assert not is_signed_with(seen, ISSUER.private_key.public_key())  # type: ignore[arg-type]  # as above


@given(st.binary(max_size=300), st.integers(min_value=0, max_value=len(DEVICE.der)))
def test_any_bytes_are_cut_or_left(data: bytes, cut: int) -> None:
    for candidate in (data, DEVICE.der[:cut] + data):
        seen = glance(candidate)
        if seen is None:
            continue
        try:
            parsed = parse_der(candidate)
        except CertificateInvalidError:
            continue
        assert (seen.common_name, P256_SPKI + seen.point) == (parsed.subject_cn, parsed.spki_der)
