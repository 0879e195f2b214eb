"""Which names a CA may certify (RFC 5280 section 4.2.1.10)."""

import ipaddress

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from birthmark.pki.name_constraints import (
    MAX_NAMES,
    ConstrainedName,
    NameConstraints,
    NameUnusableError,
    find_excluded_name,
)
from birthmark.pki.path_validation import NameForbiddenError, build_chain
from support.fakes import NOON
from support.pki.odd_certificates import a_certificate, a_root, anchors


def dns(text: str) -> ConstrainedName:
    return ConstrainedName("dns_name", text)


def mail(text: str) -> ConstrainedName:
    return ConstrainedName("rfc822_name", text)


def address(text: str) -> ConstrainedName:
    if "/" in text:
        network = ipaddress.ip_network(text)
        return ConstrainedName("ip_address", network.network_address.packed + network.netmask.packed)
    return ConstrainedName("ip_address", ipaddress.ip_address(text).packed)


@pytest.mark.parametrize(
    ("permitted", "name", "is_good"),
    [
        (dns("example.com"), dns("example.com"), True),
        (dns("example.com"), dns("A.Example.com"), True),
        (dns("example.com"), dns("badexample.com"), False),
        (dns("example.com"), dns("*.example.com"), True),
        (dns("foo.example.com"), dns("*.example.com"), False),
        (dns(""), dns("anything.example"), True),
        (mail("example.com"), mail("a@example.com"), True),
        (mail("example.com"), mail("a@b.example.com"), False),
        (mail(".example.com"), mail("a@b.example.com"), True),
        (mail("a@example.com"), mail("a@Example.com"), True),
        (mail("a@example.com"), mail("b@example.com"), False),
        (address("192.0.2.0/24"), address("192.0.2.7"), True),
        (address("192.0.2.0/24"), address("198.51.100.1"), False),
        (address("192.0.2.0/24"), address("::1"), False),
        (address("2001:db8::/32"), address("2001:db8::1"), True),
        (
            ConstrainedName("uniform_resource_identifier", ".example.com"),
            ConstrainedName("uniform_resource_identifier", "https://a.example.com/x"),
            True,
        ),
        (
            ConstrainedName("uniform_resource_identifier", "example.com"),
            ConstrainedName("uniform_resource_identifier", "https://a.example.com/x"),
            False,
        ),
        (ConstrainedName("directory_name", (b"c", b"o")), ConstrainedName("directory_name", (b"c", b"o", b"cn")), True),
        (ConstrainedName("directory_name", (b"c", b"o")), ConstrainedName("directory_name", (b"c", b"x")), False),
        (dns("example.com"), mail("a@elsewhere.example"), True),  # a constraint binds its own form only
        (
            ConstrainedName("registered_id", b""),
            ConstrainedName("registered_id", b""),
            False,
        ),  # nobody here compares those
        (ConstrainedName("registered_id", b""), dns("example.com"), True),
    ],
)
def test_only_what_is_permitted_of_its_form_may_be_certified(
    permitted: ConstrainedName, name: ConstrainedName, is_good: bool
) -> None:
    assert (find_excluded_name(NameConstraints(permitted=(permitted,)), [name]) is None) == is_good


@pytest.mark.parametrize("name", ["example.com", "a.example.com", "*.example.com", "*.com"])
def test_what_is_excluded_or_might_be_is_refused_also_where_it_is_permitted(name: str) -> None:
    constraints = NameConstraints(permitted=(dns("com"),), excluded=(dns("example.com"),))
    assert find_excluded_name(constraints, [dns("other.com"), dns(name)]) == dns(name)


@pytest.mark.parametrize(
    ("constraint", "name"),
    [
        (dns("example.com"), dns("bad name.example.com")),
        (mail("example.com"), mail("a@b@example.com")),
        (address("192.0.2.0/24"), ConstrainedName("ip_address", b"\xc0\x00\x02")),
        (dns(".example.com"), dns("a.example.com")),
        (dns("*.example.com"), dns("a.example.com")),
        (ConstrainedName("ip_address", bytes((192, 0, 2, 0, 255, 0, 255, 0))), address("192.0.2.1")),
    ],
)
def test_what_is_not_well_formed_is_refused(constraint: ConstrainedName, name: ConstrainedName) -> None:
    with pytest.raises(NameUnusableError):
        find_excluded_name(NameConstraints(permitted=(constraint,)), [name])


def test_more_names_or_constraints_than_anybody_needs_are_refused() -> None:
    with pytest.raises(NameUnusableError, match="too many"):
        find_excluded_name(NameConstraints(permitted=(dns("example.com"),)), [dns("a.example.com")] * (MAX_NAMES + 1))


def test_a_wildcard_that_covers_an_excluded_name_is_refused() -> None:
    constraints = NameConstraints(excluded=(dns("a.example.com"),))
    assert find_excluded_name(constraints, [dns("*.example.com")]) == dns("*.example.com")
    assert find_excluded_name(constraints, [dns("*.example.org")]) is None
    assert find_excluded_name(NameConstraints(excluded=(mail("a@example.com"),)), [mail("b@example.com")]) is None


def test_an_address_of_the_web_without_a_host_is_not_well_formed() -> None:
    web = ConstrainedName("uniform_resource_identifier", "https://[bad/")
    with pytest.raises(NameUnusableError):
        find_excluded_name(
            NameConstraints(permitted=(ConstrainedName("uniform_resource_identifier", "example.com"),)), [web]
        )


@given(
    st.lists(
        st.tuples(st.sampled_from(["dns_name", "rfc822_name", "uniform_resource_identifier"]), st.text(max_size=40))
    )
)
def test_any_text_gets_an_answer(pairs: list[tuple[str, str]]) -> None:
    names = [ConstrainedName(form, value) for form, value in pairs]
    try:
        find_excluded_name(NameConstraints(permitted=(dns("example.com"), mail("example.com"))), names)
    except NameUnusableError:
        pass


def test_a_chain_keeps_the_constraints_of_every_ca_above() -> None:
    root = a_root((x509.NameConstraints([x509.DNSName("example")], None), True))
    good = a_certificate((x509.SubjectAlternativeName([x509.DNSName("a.example")]), False), signer=root)
    bad = a_certificate((x509.SubjectAlternativeName([x509.DNSName("a.elsewhere")]), False), signer=root)
    assert build_chain(good.certificate, [], anchors(root), NOON)
    with pytest.raises(NameForbiddenError) as refusal:
        build_chain(bad.certificate, [], anchors(root), NOON)
    assert "dns name" in refusal.value.explain_cause()


def test_a_directory_constraint_binds_the_subject() -> None:
    permitted = x509.DirectoryName(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "DEVICE-1")]))
    root = a_root((x509.NameConstraints([permitted], None), True))
    assert build_chain(a_certificate(signer=root).certificate, [], anchors(root), NOON)
    with pytest.raises(NameForbiddenError):
        build_chain(a_certificate(signer=root, subject="device-2").certificate, [], anchors(root), NOON)
