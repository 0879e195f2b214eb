from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.pki import certificate_profiles
from birthmark.pki.certificates import Certificate
from birthmark.pki.path_validation import (
    CertificateExpiredError,
    CertificateNotYetValidError,
    ChainIncompleteError,
    ChainTooLongError,
    NotACAError,
    SignatureBrokenError,
    SignatureCache,
    build_chain,
    check_dates,
    walk_up,
)
from support.fakes import NOON
from support.pki.pki_builders import a_ca, a_device, a_key

ROOT = a_ca()
INTERMEDIATE = a_ca("Test Intermediate", parent=ROOT, profile=certificate_profiles.ISSUING_CA)
LEAF = a_device(INTERMEDIATE).certificate
ANCHORS = (ROOT.certificate,)
WHOLE = (LEAF, INTERMEDIATE.certificate, ROOT.certificate)
STRANGERS = tuple(a_ca(f"Stranger {n}").certificate for n in range(3))


@given(st.permutations([*STRANGERS, INTERMEDIATE.certificate, ROOT.certificate, LEAF, INTERMEDIATE.certificate]))
def test_a_chain_is_found_in_any_bag_that_holds_it(bag: list[Certificate]) -> None:
    assert build_chain(LEAF, bag, ANCHORS, NOON) == WHOLE
    assert walk_up(LEAF, bag) == WHOLE[1:]


def test_a_missing_intermediate_is_named() -> None:
    with pytest.raises(ChainIncompleteError) as refusal:
        build_chain(LEAF, [LEAF], ANCHORS, NOON)
    assert "CN=Test Intermediate" in refusal.value.explain_cause()


def test_an_unknown_root_is_a_missing_issuer() -> None:
    with pytest.raises(ChainIncompleteError):
        build_chain(LEAF, WHOLE, STRANGERS, NOON)


def test_an_intermediate_is_an_anchor_only_when_partial_chains_are_allowed() -> None:
    anchors = (INTERMEDIATE.certificate,)
    assert build_chain(LEAF, [], anchors, NOON, allow_partial=True) == WHOLE[:2]
    with pytest.raises(ChainIncompleteError):
        build_chain(LEAF, [], anchors, NOON)


def test_dates_are_looked_at_with_each_use_even_when_the_signature_is_cached() -> None:
    cache = SignatureCache()
    build_chain(LEAF, WHOLE, ANCHORS, NOON, cache=cache)
    with pytest.raises(CertificateExpiredError):
        build_chain(LEAF, WHOLE, ANCHORS, NOON + timedelta(days=2), cache=cache)
    with pytest.raises(CertificateNotYetValidError):
        build_chain(LEAF, WHOLE, ANCHORS, NOON - timedelta(hours=1), cache=cache)


@pytest.mark.parametrize(
    ("certificate", "name"), [(a_device(ROOT, "thing-1").certificate, "thing-1"), (ROOT.certificate, "device-1")]
)
def test_the_fix_of_an_expired_certificate_names_its_device_and_no_ca(certificate: Certificate, name: str) -> None:
    with pytest.raises(CertificateExpiredError) as refusal:
        check_dates(certificate, certificate.not_after + timedelta(days=1))
    assert f"`birthmark ca issue {name} --dir ca`" in refusal.value.explain_fix()


def test_an_expired_intermediate_is_named() -> None:
    short = a_ca("Short", parent=ROOT, profile=certificate_profiles.ISSUING_CA, lifetime=timedelta(hours=2))
    leaf = a_device(short, lifetime=timedelta(hours=2)).certificate
    with pytest.raises(CertificateExpiredError) as refusal:
        build_chain(leaf, [short.certificate], ANCHORS, NOON + timedelta(hours=3))
    assert refusal.value.facts["subject"] == "CN=device-1"


def test_a_ca_of_the_same_name_with_another_key_did_not_sign() -> None:
    impostor = a_ca("Test Root")
    leaf = a_device(impostor).certificate
    with pytest.raises((SignatureBrokenError, ChainIncompleteError)):
        build_chain(leaf, [], ANCHORS, NOON)


def test_a_changed_leaf_is_refused() -> None:
    from birthmark.pki.certificates import parse_der

    broken = parse_der(LEAF.der[:-1] + bytes([LEAF.der[-1] ^ 1]))
    with pytest.raises(SignatureBrokenError):
        build_chain(broken, WHOLE, ANCHORS, NOON)


def test_a_device_may_not_sign() -> None:
    mule = a_device(ROOT, "mule")
    leaf = a_device(mule, "victim").certificate
    with pytest.raises(NotACAError):
        build_chain(leaf, [mule.certificate], ANCHORS, NOON)


def test_a_path_length_is_kept() -> None:
    below = a_ca("Too Deep", parent=INTERMEDIATE, profile=certificate_profiles.EDGE_CA)
    leaf = a_device(below).certificate
    with pytest.raises(NotACAError) as refusal:
        build_chain(leaf, [below.certificate, INTERMEDIATE.certificate], ANCHORS, NOON)
    assert "path length" in refusal.value.explain_cause()


def test_a_bag_that_is_too_large_is_refused() -> None:
    with pytest.raises(ChainTooLongError):
        build_chain(LEAF, [ROOT.certificate] * 33, ANCHORS, NOON)


def test_a_loop_of_cross_certificates_ends() -> None:
    key_a, key_b = a_key(), a_key()
    a, b = a_ca("A", key=key_a), a_ca("B", key=key_b)
    a_by_b = a_ca("A", parent=b, key=key_a)
    b_by_a = a_ca("B", parent=a, key=key_b)
    leaf = a_device(a).certificate
    with pytest.raises(ChainIncompleteError):
        build_chain(leaf, [a_by_b.certificate, b_by_a.certificate], ANCHORS, NOON)
    assert len(walk_up(leaf, [a_by_b.certificate, b_by_a.certificate])) == 2


def test_the_signature_cache_is_bounded() -> None:
    cache = SignatureCache(max_entries=2)
    for unauthenticated in STRANGERS:
        cache.is_signed_by(LEAF, unauthenticated)
    assert len(cache._verdicts) == 2
