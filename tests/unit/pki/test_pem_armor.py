import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.pki.pem_armor import PemInvalidError, RequestsSeveralError, unarmor

DER = st.binary(max_size=127).map(lambda tail: b"\x30" + bytes([len(tail)]) + tail)


@given(DER, st.sampled_from(["CERTIFICATE REQUEST", "X509 CRL"]))
def test_every_form_of_the_same_leads_to_the_same(der: bytes, label: str) -> None:
    body = base64.encodebytes(der).decode()
    armored = f"some text\n-----BEGIN {label}-----\n{body}-----END {label}-----\nmore".encode()
    assert unarmor(armored) == unarmor(body.encode()) == unarmor(der) == der


@given(st.binary(max_size=300))
def test_any_bytes_are_unarmored_or_refused(data: bytes) -> None:
    with contextlib.suppress(PemInvalidError):
        assert unarmor(data)


@pytest.mark.parametrize("data", [b"", b"!", b"A" * 300_000])
def test_what_is_neither_is_refused(data: bytes) -> None:
    with pytest.raises(PemInvalidError):
        unarmor(data)


def test_of_several_blocks_requests_are_refused_and_certificates_are_not() -> None:
    block = "-----BEGIN {0}-----\nMAA=\n-----END {0}-----\n"
    assert unarmor(block.format("CERTIFICATE").encode() * 2) == b"0\0"
    assert unarmor((block.format("EC PARAMETERS") + block.format("EC PRIVATE KEY")).encode()) == b"0\0"
    with pytest.raises(RequestsSeveralError):
        unarmor(block.format("CERTIFICATE REQUEST").encode() * 2)
