"""Certs-only messages (RFC 5272 section 4.1), as EST sends them, and what is none."""

import pytest
from asn1crypto import cms
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from birthmark.pki.certs_only_cms import (
    MAX_CMS_BYTES,
    MAX_CMS_CERTIFICATES,
    CmsInvalidError,
    parse_certs_only,
    render_certs_only,
)
from fuzz.mutate import tlv
from support.pki.pki_builders import a_ca, a_device

ROOT = a_ca()
LEAF = a_device(ROOT)


def test_what_is_rendered_is_read_whatever_its_order() -> None:
    both = [LEAF.certificate, ROOT.certificate]
    assert set(parse_certs_only(render_certs_only(both))) == set(both)


def test_other_kinds_of_content_are_refused() -> None:
    data = cms.ContentInfo({"content_type": "data", "content": b"hello"}).dump()
    with pytest.raises(CmsInvalidError, match="SignedData"):
        parse_certs_only(data)


@pytest.mark.parametrize(
    "der", [b"", b"\x30", b"x" * 100, b"\0" * (MAX_CMS_BYTES + 1)], ids=["none", "cut", "x", "large"]
)
def test_bytes_that_are_no_message_are_refused(der: bytes) -> None:
    with pytest.raises(CmsInvalidError):
        parse_certs_only(der)


def test_more_certificates_than_any_chain_has_are_refused() -> None:
    many = [a_device(common_name=f"d{n}").certificate.parsed for n in range(MAX_CMS_CERTIFICATES + 1)]
    with pytest.raises(CmsInvalidError, match=f"{len(many)} certificates"):
        parse_certs_only(pkcs7.serialize_certificates(many, Encoding.DER))


def test_a_message_has_the_same_bytes_as_the_librarys() -> None:
    every = [LEAF.certificate, ROOT.certificate, a_device(ROOT, "d2").certificate]
    for some in (every[:1], every[:2], every, every[::-1]):
        assert render_certs_only(some) == pkcs7.serialize_certificates([one.parsed for one in some], Encoding.DER)


def test_a_kind_whose_object_identifier_is_long_is_refused_before_it_is_read() -> None:
    """Which would take seconds: a server that says so is not to hold an agent up."""
    kind = tlv(0x06, b"\x2a" + b"\xff" * 100_000 + b"\x7f")
    with pytest.raises(CmsInvalidError, match="cut off"):
        parse_certs_only(tlv(0x30, kind + tlv(0xA0, b"\x05\x00")))


def test_a_tag_that_does_not_end_is_refused_before_it_is_read() -> None:
    with pytest.raises(CmsInvalidError, match="cut off"):
        parse_certs_only(tlv(0x30, b"\xbf" + b"\xff" * 100_000))
