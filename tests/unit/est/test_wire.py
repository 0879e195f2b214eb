import base64
import contextlib
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.errors import BirthmarkError
from birthmark.est import wire
from birthmark.est.wire import CsrAttribute
from birthmark.pki.pem_armor import RequestsSeveralError
from support.fakes import NOON
from support.pki.pki_builders import a_ca, a_csr

CSR = a_csr("device-1")
PEM = b"-----BEGIN CERTIFICATE REQUEST-----\n" + base64.encodebytes(CSR) + b"-----END CERTIFICATE REQUEST-----\n"
OID = st.sampled_from(["1.2.840.10045.4.3.2", "1.2.840.113549.1.9.14", "2.5.29.17", "1.3.6.1.1.1.1.22"])
VALUE = st.sampled_from([bytes.fromhex("06082a8648ce3d030107"), b"\x05\x00", b"\x02\x02\x10\x00"])
ATTRIBUTES = st.lists(st.builds(CsrAttribute, OID, st.lists(VALUE, max_size=2, unique=True).map(sorted).map(tuple)))


@given(st.binary(min_size=1).map(lambda tail: b"\x30" + tail))
def test_a_body_survives_the_wire(der: bytes) -> None:
    body = wire.encode_body(der)
    assert wire.decode_body(body) == der
    assert max(len(line) for line in body.splitlines()) <= 64


@pytest.mark.parametrize(
    "body",
    [
        CSR,
        base64.b64encode(CSR),
        base64.encodebytes(CSR).replace(b"\n", b"\r\n"),
        b" \r\n\t" + base64.b64encode(CSR) + b"\r\n\r\n",
        PEM,
        base64.b64encode(PEM),
        base64.encodebytes(PEM.decode().encode("utf-16")),
        PEM.replace(b" REQUEST", b""),
        PEM.replace(b"\n", b"\r"),
    ],
)
def test_every_form_that_clients_send_is_read(body: bytes) -> None:
    assert wire.parse_csr(body).subject_cn == "device-1"


@pytest.mark.parametrize("body", [b"", b"\n", b"!!!!", b"MII", "Größe".encode()])
def test_what_is_no_base64_is_refused(body: bytes) -> None:
    with pytest.raises(wire.EstBodyInvalidError):
        wire.decode_body(body)


def test_several_requests_in_one_body_are_refused() -> None:
    for body in (PEM * 2, (PEM * 2).replace(b" REQUEST", b""), base64.b64encode(PEM * 3)):
        with pytest.raises(RequestsSeveralError):
            wire.parse_csr(body)


def test_a_body_has_a_limit() -> None:
    with pytest.raises(wire.EstBodyTooLargeError):
        wire.decode_body(b"A" * (wire.MAX_BODY_BYTES + 1))


@given(st.binary(max_size=300))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    for parse in (wire.parse_csr, wire.parse_certs_only, wire.parse_csr_attributes):
        with contextlib.suppress(BirthmarkError):
            parse(body)


def test_certificates_survive_the_wire_though_not_their_order() -> None:
    certificates = {a_ca(name).certificate for name in ("a", "b", "c")}
    assert set(wire.parse_certs_only(wire.render_certs_only(certificates))) == certificates


@given(ATTRIBUTES)
def test_csr_attributes_survive_the_wire(attributes: list[CsrAttribute]) -> None:
    body = wire.encode_body(wire.render_csr_attributes(attributes))
    assert wire.parse_csr_attributes(body) == tuple(attributes)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters=":")), st.text())
def test_user_and_password_survive_the_wire(user: str, password: str) -> None:
    with contextlib.suppress(UnicodeEncodeError):
        assert wire.parse_basic(wire.render_basic(user, password)) == (user, password)


@pytest.mark.parametrize("header", ["", "Basic", "Basic !", "Bearer abc", "Basic bm9jb2xvbg==", "Basic /////w=="])
def test_another_authorization_header_is_refused(header: str) -> None:
    with pytest.raises(wire.BasicInvalidError):
        wire.parse_basic(header)


def test_csr_attributes_with_an_empty_object_id_are_refused() -> None:
    with pytest.raises(wire.EstBodyInvalidError):
        wire.parse_csr_attributes(bytes.fromhex("30020600"))


def test_a_renewal_window_reads_as_it_was_written() -> None:
    window = NOON, NOON + timedelta(hours=3)
    assert wire.parse_window(wire.render_window(*window)) == window


@pytest.mark.parametrize(
    "header", [None, "", "/", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z/2026-01-01T00:00:00Z", "a/b"]
)
def test_a_renewal_window_that_makes_no_sense_is_none(header: str | None) -> None:
    assert wire.parse_window(header) is None


@given(st.text(max_size=200))
def test_any_header_is_a_window_or_none(header: str) -> None:
    found = wire.parse_window(header)
    assert found is None or found[0] <= found[1]
