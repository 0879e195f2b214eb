"""What a certificate carries by its profile: names, numbers, ends, kinds of keys."""

from contextlib import nullcontext
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.ca.rules.certificate_name_policy import HARDWARE_MODULE_NAME, NamesRefusedError, granted_names, names_in
from birthmark.ca.rules.issuance_eligibility import CaNotIssuedError, KeyKindRefusedError
from birthmark.ca.service import CertificateAuthority, ProfileUnknownError
from birthmark.pki.certificate_profiles import (
    DEVICE,
    EDGE_CA,
    FOR_REQUESTS,
    IDEVID,
    LDEVID,
    AllowedNames,
    CertificateProfile,
)
from birthmark.pki.certificates import Certificate
from birthmark.pki.csr import CertificateRequest, parse_csr
from birthmark.pki.issuance import NO_END
from support.pki.ca_world import OPERATOR, USER, an_authority, of
from support.pki.pki_builders import a_csr, a_key, an_rsa_key

KEEPING = replace(
    DEVICE,
    name="gateway",
    names=AllowedNames(("example.org",), (ip_network("10.1.0.0/16"), ip_network("fd00::/8")), ("urn:example:",)),
)
CHIP = x509.OtherName(HARDWARE_MODULE_NAME, bytes.fromhex("300906032a030404020102"))


def asking(name: str, *names: x509.GeneralName, serial: str | None = None) -> CertificateRequest:
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    if serial is not None:
        subject.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, serial))
    builder = x509.CertificateSigningRequestBuilder(x509.Name(subject))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = builder.sign(a_key(), hashes.SHA256())
    return parse_csr(made.public_bytes(serialization.Encoding.DER))


def holder_of(certificate: Certificate) -> Principal:
    name = certificate.subject_cn or ""
    return Principal(PrincipalKind.DEVICE, name, name, certificate.thumbprint)


def number_of(certificate: Certificate) -> object:
    return certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)[0].value


@pytest.mark.parametrize(
    "name",
    [
        x509.DNSName("example.org"),
        x509.DNSName("GW.Line.example.org"),
        x509.IPAddress(ip_address("10.1.2.3")),
        x509.IPAddress(ip_address("fd00::1")),
        x509.UniformResourceIdentifier("urn:example:gateway"),
    ],
)
def test_a_name_within_what_is_allowed_is_kept(name: x509.GeneralName) -> None:
    assert granted_names([name, name], KEEPING, by_operator=False) == (name,)


@pytest.mark.parametrize(
    "name",
    [
        x509.DNSName("example.org.evil.example"),
        x509.DNSName("evilexample.org"),
        x509.DNSName("*.example.org"),
        x509.DNSName("a..example.org"),
        x509.IPAddress(ip_address("10.2.0.1")),
        x509.IPAddress(ip_network("10.1.0.0/24")),
        x509.UniformResourceIdentifier("urn:example"),
        x509.RFC822Name("me@example.org"),
        x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])),
        CHIP,
    ],
)
def test_any_other_name_is_refused_and_named(name: x509.GeneralName) -> None:
    with pytest.raises(NamesRefusedError) as refused:
        granted_names([x509.DNSName("example.org"), name], KEEPING, by_operator=False)
    assert "names below example.org" in refused.value.explain_cause()


@pytest.mark.parametrize(
    ("uri", "is_kept"),
    [
        ("https://example.org", True),
        ("https://example.org/a", True),
        ("https://example.org?a=b#c", True),
        ("https://example.org:8443/", False),
        ("https://example.org:80@evil/", False),
        ("https://example.org@evil/", False),
        ("https://example.org/../secret", False),
        ("https://example.org/a/%2e%2E/b", False),
        ("https://example.org\\@evil/", False),
        ("https://example.org/a b", False),
        ("https://example.org.evil.example/", False),
        ("https://example.organic", False),
    ],
)
def test_a_uri_begins_with_whole_parts(uri: str, is_kept: bool) -> None:
    profile = replace(DEVICE, names=AllowedNames(uris=("https://example.org",)))
    try:
        granted_names([x509.UniformResourceIdentifier(uri)], profile, by_operator=False)
    except NamesRefusedError:
        assert not is_kept
    else:
        assert is_kept


@pytest.mark.parametrize(
    ("uri", "is_allowed"),
    [
        ("https://example.org:8443/devices/1", True),
        ("https://example.org/devices/1", False),
        ("https://example.org:8443/devices/../admin", False),
        ("urn:example:gateway:7", True),
        ("urn:example:gatewayx", False),
        ("spiffe://plant/line-7/pump", True),
        ("spiffe://plant@evil/line-7/pump", False),
    ],
)
def test_a_uri_lies_below_one_of_the_same_scheme_host_and_port(uri: str, *, is_allowed: bool) -> None:
    uris = ("https://example.org:8443/devices/", "urn:example:gateway", "spiffe://plant/line-7")
    profile = replace(DEVICE, names=AllowedNames(uris=uris))
    with nullcontext() if is_allowed else pytest.raises(NamesRefusedError):
        granted_names([x509.UniformResourceIdentifier(uri)], profile, by_operator=False)


def test_more_names_than_any_device_has_are_refused() -> None:
    with pytest.raises(NamesRefusedError):
        granted_names([x509.DNSName(f"a{n}.example.org") for n in range(33)], KEEPING, by_operator=False)


async def test_names_of_a_request_get_in_only_by_a_profile_that_keeps_them(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        name = x509.DNSName("gw.example.org")
        for profile, wanted in ((DEVICE, ()), (KEEPING, (name,))):
            leaf, *_ = await ca.issue(asking(profile.name, name), USER, profile)
            assert names_in(leaf) == wanted


async def test_a_renewal_keeps_the_names_it_has(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        name = x509.DNSName("gw.example.org")
        first, *_ = await ca.issue(asking("gateway-1", name), of("gateway-1"), KEEPING)
        narrower = replace(KEEPING, names=AllowedNames(("other.example",)))
        for request in (asking("gateway-1"), asking("gateway-1", name)):
            renewed, *_ = await ca.issue(request, holder_of(first), narrower)
            assert names_in(renewed) == (name,)
        with pytest.raises(NamesRefusedError):
            await ca.issue(asking("gateway-1", x509.DNSName("b.example.org")), holder_of(first), narrower)
        other, *_ = await ca.issue(asking("gateway-1"), holder_of(first), DEVICE)
        assert names_in(other) == ()


async def test_a_birth_certificate_has_no_end_and_a_serial_number(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        leaf, *_ = await ca.issue(asking("chip-1", CHIP, serial="SN 0001"), OPERATOR, IDEVID)
        assert leaf.not_after == NO_END
        assert b"99991231235959Z" in leaf.der
        assert number_of(leaf) == "SN 0001"
        assert names_in(leaf) == (CHIP,)


@pytest.mark.parametrize("value", [b"", b"\x30\x00", b"junk", CHIP.value + b"!", b"\x04\x02ab"])
async def test_what_is_no_hardware_module_is_refused(value: bytes) -> None:
    with pytest.raises(NamesRefusedError):
        granted_names([x509.OtherName(HARDWARE_MODULE_NAME, value)], IDEVID, by_operator=True)


async def test_a_device_chooses_neither_its_serial_number_nor_its_chip(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        leaf, *_ = await ca.issue(asking("chip-1", serial="SN of another"), of("chip-1"), LDEVID)
        assert number_of(leaf) == "chip-1"
        with pytest.raises(NamesRefusedError):
            await ca.issue(asking("chip-1", CHIP), of("chip-1"), IDEVID)


async def test_a_renewal_keeps_its_serial_number(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        first, *_ = await ca.issue(asking("chip-1", serial="SN 0001"), OPERATOR, LDEVID)
        renewed, *_ = await ca.issue(asking("chip-1", serial="SN 0002"), holder_of(first), LDEVID)
        assert renewed.subject == first.subject


async def test_a_name_that_no_serial_number_can_hold_is_told_by_its_digest(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        leaf, *_ = await ca.issue(asking("chip_1"), of("chip_1"), LDEVID)
        assert len(str(number_of(leaf))) == 64


async def kinds_taken(ca: CertificateAuthority, profile: CertificateProfile) -> list[str]:
    taken = []
    for name, key in (("P-256", a_key()), ("P-384", ec.generate_private_key(ec.SECP384R1())), ("RSA", an_rsa_key())):
        try:
            await ca.issue(parse_csr(a_csr(name, key=key)), USER, profile)
        except KeyKindRefusedError as refused:
            assert "openssl genpkey -algorithm " in refused.explain_fix()
        else:
            taken.append(name)
    return taken


@pytest.mark.parametrize(
    ("kinds", "taken"),
    [
        ((), ["P-256", "P-384", "RSA"]),
        (("P-384",), ["P-384"]),
        (("RSA",), ["RSA"]),
        (("RSA-2048", "P-256"), ["P-256", "RSA"]),
        (("RSA-3072",), []),
    ],
)
async def test_a_profile_says_which_keys_it_takes(tmp_path: Path, kinds: tuple[str, ...], taken: list[str]) -> None:
    async with an_authority(tmp_path) as ca:
        assert await kinds_taken(ca, replace(DEVICE, key_kinds=frozenset(kinds))) == taken


async def test_only_the_names_own_credential_becomes_an_edge_ca(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        leaf, *_ = await ca.issue(asking("edge-1"), of("edge-1"), EDGE_CA)
        assert (leaf.is_ca, leaf.extensions.path_length) == (True, 0)
        with pytest.raises(CaNotIssuedError):
            await ca.issue(asking("edge-2"), USER, EDGE_CA)


async def test_the_ca_of_a_gateway_may_not_name_this_server_and_a_device_has_no_constraint(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        ca.own_names = (x509.DNSName("est.example.org"), x509.IPAddress(ip_network("192.0.2.7/32")))
        edge, *_ = await ca.issue(asking("edge-1"), of("edge-1"), EDGE_CA)
        device, *_ = await ca.issue(asking("pump-1"), of("pump-1"))
        found = edge.parsed.extensions.get_extension_for_class(x509.NameConstraints).value
        assert tuple(found.excluded_subtrees or ()) == ca.own_names
        assert not [one for one in device.parsed.extensions if isinstance(one.value, x509.NameConstraints)]


async def test_a_profile_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    async with an_authority(tmp_path) as ca:
        assert ca.profile("ldevid") == LDEVID
        with pytest.raises(ProfileUnknownError) as refused:
            ca.profile("gatewy")
        assert all(name in str(refused.value) for name in FOR_REQUESTS)
