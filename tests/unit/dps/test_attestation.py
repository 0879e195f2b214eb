"""Which enrollment a proof belongs to, and whether it holds."""

from dataclasses import replace
from datetime import timedelta

import pytest

from birthmark.auth.sas import SasExpiredError, SasScopeError, SasSignatureError, derive_device_key
from birthmark.dps.model import Claim, Enrollment, EnrollmentSigner, SymmetricKey, X509Individual
from birthmark.dps.rules.attestation import (
    CaNotOnRecordError,
    CaUnverifiedError,
    CertificateMismatchError,
    EnrollmentDisabledError,
    IntermediateNotSentError,
    NoNameError,
    NoProofError,
    NotEnrolledError,
    RegistrationIdMismatchError,
    check_group,
    check_individual,
    check_leaf,
    find_group,
    judge_missing_issuer,
)
from birthmark.errors import BirthmarkError
from birthmark.pki import certificate_profiles
from birthmark.pki.path_validation import (
    CertificateExpiredError,
    CertificateNotYetValidError,
    NotACAError,
    SignatureBrokenError,
    SignatureCache,
    Signatures,
)
from birthmark.pki.registered_ca_certificate import CaCertificate
from support.azure.sas_tokens import make_sas
from support.fakes import NOON
from support.pki.odd_certificates import a_certificate
from support.pki.pki_builders import Holder, a_ca, a_device

ROOT = a_ca("Root")
MIDDLE = a_ca("Middle", parent=ROOT, profile=certificate_profiles.ISSUING_CA)
DEVICE = a_device(MIDDLE, "Device-1")


def a_claim(holder: Holder | None = DEVICE, *sent: Holder, name: str = "device-1") -> Claim:
    leaf = holder.certificate if holder else None
    return Claim("0ne00000001", name, leaf, tuple(h.certificate for h in sent))


def an_enrollment(holder: Holder = DEVICE, **changes: object) -> Enrollment:
    fields = {"id": "device-1", "attestation": X509Individual((holder.certificate.thumbprint,))} | changes
    return Enrollment(**fields)  # type: ignore[arg-type]  # fields by name


def an_authority(holder: Holder = ROOT, *, is_verified: bool = True) -> CaCertificate:
    return CaCertificate("ca", holder.certificate, is_verified, None, "e", NOON, NOON)


def found(claim: Claim, signers: list[EnrollmentSigner], authorities: list[CaCertificate]) -> str:
    check_leaf(claim, NOON)
    return find_group(claim, signers, authorities, Signatures(SignatureCache()), NOON).group_id


def test_the_enrolled_certificate_is_accepted_whatever_the_case_of_the_name() -> None:
    check_individual(an_enrollment(), a_claim(name="DEVICE-1"), NOON)


def test_another_certificate_of_the_same_name_is_refused() -> None:
    with pytest.raises(CertificateMismatchError):
        check_individual(an_enrollment(), a_claim(a_device(MIDDLE, "device-1")), NOON)


def test_no_certificate_is_refused() -> None:
    with pytest.raises(NoProofError):
        check_individual(an_enrollment(), a_claim(None), NOON)


def test_a_name_that_is_not_the_common_name_is_refused() -> None:
    with pytest.raises(RegistrationIdMismatchError):
        check_individual(an_enrollment(), a_claim(name="device-2"), NOON)


def test_a_disabled_enrollment_is_refused_even_with_the_right_certificate() -> None:
    with pytest.raises(EnrollmentDisabledError):
        check_individual(an_enrollment(is_enabled=False), a_claim(), NOON)


def test_an_expired_or_early_certificate_is_refused() -> None:
    with pytest.raises(CertificateExpiredError):
        check_individual(an_enrollment(), a_claim(), NOON + timedelta(days=400))
    with pytest.raises(CertificateNotYetValidError):
        check_individual(an_enrollment(), a_claim(), NOON - timedelta(days=400))


def test_a_group_is_found_by_the_root_through_a_sent_intermediate() -> None:
    signers = [EnrollmentSigner("by-root", ROOT.certificate)]
    assert found(a_claim(DEVICE, MIDDLE), signers, [an_authority()]) == "by-root"


def test_the_group_closest_to_the_leaf_wins() -> None:
    signers = [EnrollmentSigner("by-root", ROOT.certificate), EnrollmentSigner("by-middle", MIDDLE.certificate)]
    assert found(a_claim(DEVICE, MIDDLE), signers, [an_authority()]) == "by-middle"


def test_an_intermediate_that_was_not_sent_is_named() -> None:
    with pytest.raises(IntermediateNotSentError) as refusal:
        found(a_claim(DEVICE), [EnrollmentSigner("by-root", ROOT.certificate)], [an_authority()])
    assert "Middle" in refusal.value.facts["issuer"]


def judged(device: Holder, *signers: EnrollmentSigner) -> BirthmarkError:
    claim = a_claim(device)
    with pytest.raises(IntermediateNotSentError) as missing:
        found(claim, list(signers), [])
    return judge_missing_issuer(missing.value, claim, signers)


def test_no_signature_is_looked_at_where_nothing_on_record_carries_a_name_that_was_shown() -> None:
    signatures = Signatures(SignatureCache())
    with pytest.raises(IntermediateNotSentError) as refused:
        find_group(a_claim(DEVICE, MIDDLE, MIDDLE), [], [], signatures, NOON)
    assert refused.value.facts["issuer"] == ROOT.certificate.subject_text, "names alone say how far the chain goes"
    with pytest.raises(NotEnrolledError):
        find_group(a_claim(DEVICE, MIDDLE, ROOT), [], [], signatures, NOON)
    assert not signatures.cache._verdicts


def test_a_device_that_nobody_enrolled_is_told_so_and_nothing_of_its_chain() -> None:
    assert isinstance(judged(DEVICE), NotEnrolledError)


def test_advice_about_the_chain_names_the_group_that_may_be_meant() -> None:
    advice = judged(DEVICE, EnrollmentSigner("by-root", ROOT.certificate))
    assert isinstance(advice, IntermediateNotSentError)
    assert "by-root" in advice.explain_fix()


def test_a_group_whose_ca_can_have_no_ca_below_is_not_meant() -> None:
    deepest = a_ca("Another", profile=certificate_profiles.ISSUING_CA)
    assert isinstance(judged(DEVICE, EnrollmentSigner("other", deepest.certificate)), NotEnrolledError)


def test_a_self_signed_device_without_enrollment_is_not_enrolled() -> None:
    with pytest.raises(NotEnrolledError):
        found(a_claim(a_device(None, "device-1")), [], [])


def test_a_ca_on_record_without_a_group_enrolls_nobody() -> None:
    with pytest.raises(NotEnrolledError):
        found(a_claim(DEVICE, MIDDLE), [], [an_authority()])


def test_a_group_whose_ca_is_not_verified_is_refused() -> None:
    with pytest.raises(CaUnverifiedError):
        found(a_claim(DEVICE, MIDDLE), [EnrollmentSigner("g", ROOT.certificate)], [an_authority(is_verified=False)])


def test_a_groups_own_intermediate_counts_when_its_root_is_verified() -> None:
    assert found(a_claim(DEVICE), [EnrollmentSigner("g", MIDDLE.certificate)], [an_authority()]) == "g"


def test_a_verified_root_that_has_ended_vouches_for_nobody() -> None:
    root = a_ca("Ended")
    ended = a_ca("Ended", key=root.private_key, now=NOON - timedelta(days=40), lifetime=timedelta(days=30))
    middle = a_ca("Below ended", parent=root, profile=certificate_profiles.ISSUING_CA)
    assert found(
        a_claim(a_device(middle, "Device-1")), [EnrollmentSigner("g", middle.certificate)], [an_authority(root)]
    )
    with pytest.raises(CertificateExpiredError):
        found(a_claim(a_device(middle, "Device-1")), [EnrollmentSigner("g", middle.certificate)], [an_authority(ended)])


def test_a_groups_own_ca_that_is_on_record_nowhere_is_told_apart() -> None:
    with pytest.raises(CaNotOnRecordError) as refusal:
        found(a_claim(DEVICE), [EnrollmentSigner("g:1", MIDDLE.certificate)], [])
    assert refusal.value.explain_fix().endswith("`birthmark dps ca create g-1 --of-group g:1 --verified`")


def test_a_ca_made_again_under_the_same_name_is_told_apart() -> None:
    impostor = a_ca("Root")
    direct = a_device(ROOT, "device-1")
    with pytest.raises(SignatureBrokenError):
        found(a_claim(direct), [EnrollmentSigner("g", impostor.certificate)], [an_authority(impostor)])


def test_a_device_certificate_cannot_vouch_for_another_device() -> None:
    forged = a_device(DEVICE, "device-1")
    with pytest.raises((NotACAError, IntermediateNotSentError)):
        found(a_claim(forged, DEVICE, MIDDLE), [EnrollmentSigner("g", ROOT.certificate)], [an_authority()])
    with pytest.raises((NotACAError, IntermediateNotSentError)):
        found(a_claim(forged, DEVICE), [EnrollmentSigner("g", MIDDLE.certificate)], [an_authority()])


KEY, OTHER_KEY = b"k" * 32, b"o" * 32
SOON_S = int((NOON + timedelta(hours=1)).timestamp())
RESOURCE = "0ne00000001/registrations/device-1"


def by_token(token: str | None) -> Claim:
    return replace(a_claim(None), token=token)


def by_keys(*keys: bytes, is_enabled: bool = True) -> Enrollment:
    return an_enrollment(attestation=SymmetricKey(keys), is_enabled=is_enabled)


@pytest.mark.parametrize("key", [KEY, OTHER_KEY], ids=["primary", "secondary"])
def test_a_token_of_either_key_is_accepted(key: bytes) -> None:
    check_individual(by_keys(KEY, OTHER_KEY), by_token(make_sas(RESOURCE, key, SOON_S, "registration")), NOON)


def test_a_token_of_the_key_derived_for_this_device_is_accepted_of_a_group() -> None:
    token = make_sas(RESOURCE, derive_device_key(KEY, "device-1"), SOON_S, "registration")
    check_group(by_keys(KEY), by_token(token), NOON)


@pytest.mark.parametrize("key", [KEY, derive_device_key(KEY, "device-2")], ids=["the group's own", "another device's"])
def test_a_token_of_another_key_is_refused_of_a_group(key: bytes) -> None:
    with pytest.raises(SasSignatureError):
        check_group(by_keys(KEY), by_token(make_sas(RESOURCE, key, SOON_S, "registration")), NOON)


def test_a_token_does_not_open_a_group_of_certificates() -> None:
    with pytest.raises(SasSignatureError):
        check_group(an_enrollment(), by_token(make_sas(RESOURCE, KEY, SOON_S, "registration")), NOON)


@pytest.mark.parametrize("token", [None, ""])
def test_where_a_key_is_on_record_a_certificate_is_not_enough(token: str | None) -> None:
    with pytest.raises(NoProofError, match="no token"):
        check_individual(by_keys(KEY), replace(a_claim(), token=token), NOON)


@pytest.mark.parametrize(
    ("resource", "expiry_s", "error"),
    [
        (RESOURCE.replace("device-1", "device-2"), SOON_S, SasScopeError),
        (RESOURCE.replace("0ne00000001", "0ne00000002"), SOON_S, SasScopeError),
        (RESOURCE, SOON_S - 7200, SasExpiredError),
    ],
    ids=["for another device", "for another scope", "expired"],
)
def test_a_token_that_does_not_hold_is_refused(resource: str, expiry_s: int, error: type[BirthmarkError]) -> None:
    with pytest.raises(error):
        check_individual(by_keys(KEY), by_token(make_sas(resource, KEY, expiry_s, "registration")), NOON)


def test_a_disabled_group_is_refused_even_with_the_right_token() -> None:
    token = make_sas(RESOURCE, derive_device_key(KEY, "device-1"), SOON_S, "registration")
    with pytest.raises(EnrollmentDisabledError):
        check_group(by_keys(KEY, is_enabled=False), by_token(token), NOON)


def test_a_certificate_without_a_common_name_is_refused() -> None:
    with pytest.raises(NoNameError):
        check_individual(an_enrollment(), a_claim(a_certificate(subject=None)), NOON)


def test_a_certificate_does_not_open_an_enrollment_of_a_group_s_kind() -> None:
    with pytest.raises(CertificateMismatchError) as refusal:
        check_individual(an_enrollment(attestation=X509Individual(())), a_claim(), NOON)
    assert refusal.value.facts["expected"] == "none"
