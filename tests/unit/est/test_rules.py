"""Whom a certificate speaks for at EST, whose request it is, and what a renewal may change."""

import base64

import pytest
from cryptography import x509

from birthmark.auth.principals import PrincipalKind
from birthmark.ca.model import IssuedCertificate
from birthmark.est.model import BootstrapCa
from birthmark.est.rules.caller_rate_limit import EstThrottledError, Limiter
from birthmark.est.rules.client_certificate_identity import (
    ClientCertificateRevokedError,
    ClientCertificateUnknownError,
    identify_introduced,
    identify_issued,
)
from birthmark.est.rules.reenrollment_and_channel_binding_checks import (
    ChannelBindingError,
    ReenrollIdentityChangedError,
    ReenrollWithoutCertificateError,
    check_channel_binding,
    check_same_identity,
)
from birthmark.pki.csr import CertificateRequest, parse_csr
from birthmark.pki.path_validation import SignatureCache, Signatures
from support.fakes import NOON
from support.pki.pki_builders import Holder, a_ca, a_csr, a_device
from support.server.asgi import FakePeer

CA, MAKER = a_ca("Ours"), a_ca("Maker")
DEVICE, BORN = a_device(CA), a_device(MAKER, "chip-7")


def issued(holder: Holder = DEVICE, *, is_revoked: bool = False) -> IssuedCertificate:
    return IssuedCertificate(holder.certificate, "device-1", "device", "est_user:a", NOON if is_revoked else None)


def makers(*, any_name: bool = False) -> list[BootstrapCa]:
    return [BootstrapCa(MAKER.certificate, any_name)]


def test_a_certificate_issued_here_speaks_for_its_device() -> None:
    found = identify_issued(issued())
    assert (found.kind, found.device_id) == (PrincipalKind.DEVICE, "device-1")


def test_a_revoked_certificate_speaks_for_nobody() -> None:
    with pytest.raises(ClientCertificateRevokedError):
        identify_issued(issued(is_revoked=True))


@pytest.mark.parametrize(("any_name", "allowed"), [(False, "chip-7"), (True, None)])
def test_a_birth_certificate_introduces_its_own_name_or_any(any_name: bool, allowed: str | None) -> None:
    found, by = identify_introduced(BORN.certificate, (), makers(any_name=any_name), NOON)
    assert by in makers(any_name=any_name)
    assert (found.kind, found.device_id) == (PrincipalKind.BOOTSTRAP, allowed)


def test_a_certificate_of_nobody_known_is_refused() -> None:
    with pytest.raises(ClientCertificateUnknownError):
        identify_introduced(a_device(a_ca("Other")).certificate, (), makers(), NOON)


def with_password(password: str | None) -> CertificateRequest:
    oid = x509.oid.AttributeOID.CHALLENGE_PASSWORD
    return parse_csr(a_csr(attributes=() if password is None else ((oid, password.encode()),)))


def test_a_request_without_a_binding_is_anybodys() -> None:
    check_channel_binding(with_password(None), FakePeer())


@pytest.mark.parametrize("peer", [FakePeer(tls_unique=b"here"), FakePeer(exporter=b"here")])
def test_a_request_bound_to_this_connection_is_taken(peer: FakePeer) -> None:
    check_channel_binding(with_password(base64.b64encode(b"here").decode()), peer)


@pytest.mark.parametrize("peer", [FakePeer(tls_unique=b"there"), FakePeer()])
def test_a_request_bound_to_another_connection_is_refused(peer: FakePeer) -> None:
    with pytest.raises(ChannelBindingError):
        check_channel_binding(with_password(base64.b64encode(b"here").decode()), peer)


def test_a_renewal_of_the_same_identity_is_taken() -> None:
    current = a_device(CA, "device-1").certificate
    assert check_same_identity(parse_csr(a_csr("device-1")), current) is current


def test_a_renewal_needs_the_certificate_it_renews() -> None:
    with pytest.raises(ReenrollWithoutCertificateError):
        check_same_identity(parse_csr(a_csr()), None)


def test_a_renewal_may_not_change_the_subject() -> None:
    with pytest.raises(ReenrollIdentityChangedError, match="subject"):
        check_same_identity(parse_csr(a_csr("another")), a_device(CA, "device-1").certificate)


def test_a_renewal_may_not_add_names() -> None:
    names = x509.SubjectAlternativeName([x509.DNSName("more.example")])
    with pytest.raises(ReenrollIdentityChangedError, match="subjectAltName"):
        check_same_identity(parse_csr(a_csr("device-1", extensions=((names, False),))), a_device(CA).certificate)


def test_the_oldest_caller_is_forgotten_when_there_are_too_many() -> None:
    limiter = Limiter(burst=1, every_s=6.0, max_callers=2)
    for who in ("a", "b", "c"):
        limiter.take(who, 0.0)
    limiter.take("a", 0.0)
    with pytest.raises(EstThrottledError):
        limiter.take("a", 0.0)


def test_no_signature_is_looked_at_where_no_makers_ca_carries_a_name_that_was_shown() -> None:
    signatures, other = Signatures(SignatureCache()), a_ca("Other")
    with pytest.raises(ClientCertificateUnknownError):
        identify_introduced(a_device(other).certificate, (other.certificate,), makers(), NOON, signatures)
    assert not signatures.cache._verdicts
