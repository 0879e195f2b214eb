import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.ca.model import LiveCertificate, SubjectStatus, key_digest
from birthmark.ca.rules.issuance_eligibility import (
    CaNotIssuedError,
    KeyRevokedError,
    KeyTakenError,
    NameHeldError,
    NameLostError,
    NameNotAllowedError,
    NoCommonNameError,
    check_speaks_for,
    decide,
)
from birthmark.pki.certificate_profiles import DEVICE, EDGE_CA
from birthmark.pki.certificates import Thumbprint
from birthmark.pki.csr import parse_csr
from birthmark.pki.names_and_registration_ids import name_of
from support.fakes import NOON
from support.pki.pki_builders import a_csr, a_key

USER = Principal(PrincipalKind.EST_USER, "factory")
OPERATOR = Principal(PrincipalKind.OPERATOR, "local")
REQUEST = parse_csr(a_csr("device-1"))
NOTHING = SubjectStatus()


def held_by(device_id: str, key: bytes = b"another key") -> SubjectStatus:
    """A name that a live certificate holds."""
    return SubjectStatus(live=[LiveCertificate(Thumbprint(bytes(32)), device_id, key)])


def test_a_device_gets_a_certificate_for_its_name() -> None:
    assert decide(REQUEST, USER, DEVICE, NOTHING) == "device-1"


def test_a_device_may_renew_with_the_key_it_has() -> None:
    holder = Principal(PrincipalKind.DEVICE, "device-1", device_id="device-1")
    assert decide(REQUEST, holder, DEVICE, SubjectStatus(key_holder="device-1")) == "device-1"


def test_a_device_may_not_have_a_certificate_for_another() -> None:
    with pytest.raises(NameNotAllowedError):
        decide(REQUEST, Principal(PrincipalKind.DEVICE, "device-2", device_id="device-2"), DEVICE, NOTHING)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("device-1", "birthmark env --format aziot --registration-id device-1"),
        ("pump 1", "birthmark pki user create 'pump 1' --device 'pump 1'"),
    ],
)
def test_the_credential_of_another_name_is_one_that_can_be_made(name: str, command: str) -> None:
    holder = Principal(PrincipalKind.DEVICE, "device-2", device_id="device-2")
    with pytest.raises(NameNotAllowedError) as refusal:
        decide(parse_csr(a_csr(name)), holder, DEVICE, NOTHING)
    assert f"`{command}`" in refusal.value.explain_fix()


@pytest.mark.parametrize("name", ["pump 1:a", "-pump 1", "pump\t1", "p " * 65, ""])
def test_no_command_is_offered_for_a_name_that_no_credential_can_have(name: str) -> None:
    holder = Principal(PrincipalKind.DEVICE, "device-2", device_id="device-2")
    with pytest.raises(NameNotAllowedError) as refusal:
        check_speaks_for(holder, name)
    assert refusal.value.explain_fix() == "Request the name of the current certificate."


def test_a_key_belongs_to_one_device() -> None:
    with pytest.raises(KeyTakenError) as refusal:
        decide(REQUEST, USER, DEVICE, SubjectStatus(key_holder="device-7"))
    assert "device-7" in refusal.value.explain_cause()


def test_a_request_without_a_common_name_is_refused() -> None:
    two = x509.Name([*name_of("a"), *name_of("b")])
    builder = x509.CertificateSigningRequestBuilder(subject_name=two)
    nameless = parse_csr(builder.sign(a_key(), SHA256()).public_bytes(Encoding.DER))
    with pytest.raises(NoCommonNameError):
        decide(nameless, USER, DEVICE, NOTHING)


def test_ca_certificates_are_for_operators() -> None:
    wanting = parse_csr(a_csr(extensions=((x509.BasicConstraints(ca=True, path_length=0), True),)))
    with pytest.raises(CaNotIssuedError):
        decide(wanting, USER, DEVICE, NOTHING)
    with pytest.raises(CaNotIssuedError):
        decide(wanting, USER, EDGE_CA, NOTHING)
    assert decide(wanting, OPERATOR, EDGE_CA, NOTHING) == "device-1"


def test_a_password_for_any_name_gives_no_second_key_to_a_name_that_is_held() -> None:
    with pytest.raises(NameHeldError) as refusal:
        decide(REQUEST, USER, DEVICE, held_by("device-1"))
    assert "birthmark pki release device-1" in refusal.value.explain_fix()


def test_the_same_key_for_the_same_name_again_repeats_a_lost_answer() -> None:
    assert decide(REQUEST, USER, DEVICE, held_by("device-1", key_digest(REQUEST.spki_der))) == "device-1"


def test_a_maker_s_device_that_may_ask_for_any_name_does_not_get_one_that_is_held() -> None:
    with pytest.raises(NameHeldError):
        decide(REQUEST, Principal(PrincipalKind.BOOTSTRAP, "idevid"), DEVICE, held_by("device-1"))


@pytest.mark.parametrize("kind", [PrincipalKind.EST_USER, PrincipalKind.DEVICE, PrincipalKind.BOOTSTRAP])
def test_a_credential_of_the_very_name_may_have_a_second_key(kind: PrincipalKind) -> None:
    assert decide(REQUEST, Principal(kind, "any", device_id="device-1"), DEVICE, held_by("device-1")) == "device-1"


@pytest.mark.parametrize("principal", [USER, Principal(PrincipalKind.EST_USER, "bound", device_id="device-1")])
def test_a_name_that_is_held_has_one_spelling(principal: Principal) -> None:
    with pytest.raises(NameHeldError):
        decide(REQUEST, principal, DEVICE, held_by("DEVICE-1", key_digest(REQUEST.spki_der)))


def test_one_key_in_two_spellings_of_a_name_is_one_holder_s() -> None:
    shouted = parse_csr(a_csr("DEVICE-1"))
    assert decide(shouted, USER, DEVICE, SubjectStatus(key_holder="device-1")) == "DEVICE-1"


@pytest.mark.parametrize("principal", [USER, OPERATOR, Principal(PrincipalKind.DEVICE, "device-1", "device-1")])
def test_a_revoked_key_is_certified_for_nobody(principal: Principal) -> None:
    with pytest.raises(KeyRevokedError):
        decide(REQUEST, principal, DEVICE, SubjectStatus(key_holder="device-1", key_revoked_at=NOON))


@pytest.mark.parametrize("principal", [USER, Principal(PrincipalKind.DEVICE, "device-1", "device-1")])
def test_a_name_that_was_taken_back_is_certified_for_nobody_but_the_operator(principal: Principal) -> None:
    standing = SubjectStatus(lost_at=NOON)
    with pytest.raises(NameLostError):
        decide(REQUEST, principal, DEVICE, standing)
    assert decide(REQUEST, OPERATOR, DEVICE, standing) == "device-1"


def test_the_fix_of_a_revoked_key_asks_for_the_same_name() -> None:
    with pytest.raises(KeyRevokedError) as refusal:
        decide(parse_csr(a_csr("pump-7")), OPERATOR, DEVICE, SubjectStatus(key_revoked_at=NOON))
    assert "-subj /CN=pump-7 " in refusal.value.explain_fix()
