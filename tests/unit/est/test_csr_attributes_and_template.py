"""What `csrattrs` says: the attributes of RFC 7030, and the template of RFC 9908."""

import pytest
from asn1crypto import core, parser

from birthmark.est.rules.csr_attributes_and_template import TEMPLATE, KeyRequirements, render_wish
from birthmark.est.wire import CsrAttribute, parse_csr_attributes


def said(wish: KeyRequirements) -> dict[str, tuple[bytes, ...]]:
    return {one.oid: one.values for one in parse_csr_attributes(render_wish(wish))}


@pytest.mark.parametrize(
    ("key", "kind", "value", "hashed"),
    [
        ("P-256", "1.2.840.10045.2.1", core.ObjectIdentifier("1.2.840.10045.3.1.7"), "1.2.840.10045.4.3.2"),
        ("P-384", "1.2.840.10045.2.1", core.ObjectIdentifier("1.3.132.0.34"), "1.2.840.10045.4.3.3"),
        ("RSA-3072", "1.2.840.113549.1.1.1", core.Integer(3072), "1.2.840.113549.1.1.11"),
    ],
)
def test_the_key_is_named_with_its_curve_or_size_and_the_hash(
    key: str, kind: str, value: core.Asn1Value, hashed: str
) -> None:
    attributes = said(KeyRequirements(key))
    assert attributes[kind] == (value.dump(),)
    assert attributes[hashed] == ()


@pytest.mark.parametrize("key", ["P-256", "P-384", "RSA-2048"])
def test_the_template_leaves_the_name_to_the_device_and_gives_the_key(key: str) -> None:
    (template,) = said(KeyRequirements(key))[TEMPLATE]
    content, found = parser.parse(template)[4], []
    while content:
        *_, header, part, trailer = parser.parse(content)
        found.append((header[0], part))
        content = content[len(header) + len(part) + len(trailer) :]
    (version, names, algorithm, attributes) = found
    assert version == (0x02, b"\x00")
    assert names == (0x30, bytes.fromhex("310730050603550403"))  # commonName, without a value
    assert (algorithm[0], attributes) == (0xA0, (0xA1, b""))


def test_channel_binding_is_asked_for_where_it_is_wanted() -> None:
    challenge = "1.2.840.113549.1.9.7"
    assert challenge in said(KeyRequirements("P-256", channel_binding=True))
    assert challenge not in said(KeyRequirements("P-256"))


def test_what_is_said_reads_as_attributes_again() -> None:
    assert CsrAttribute("1.2.840.10045.4.3.2") in parse_csr_attributes(render_wish(KeyRequirements("P-256")))
