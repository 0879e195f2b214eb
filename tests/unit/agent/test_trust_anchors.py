"""Which new root is followed: one that a root that is trusted has certified, for those who trust that root."""

import itertools
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from birthmark.agent.root_rollover import MAX_STEPS, FollowedAnchors, steps_in
from birthmark.device_transports.identity_and_trust import ServerTrust
from birthmark.pki import path_validation
from birthmark.pki.certificate_profiles import EDGE_ISSUING_CA, ISSUING_CA, ROOT, CertificateProfile
from birthmark.pki.certificates import Certificate, is_signed_by
from support.fakes import NOON
from support.pki.odd_certificates import a_certificate, usage
from support.pki.pki_builders import Holder, a_ca, a_key

OLD, NEW, THIRD, OTHER = a_ca("Old Root"), a_ca("New Root"), a_ca("Third Root"), a_ca("Other Root")


def link(of: Holder, by: Holder) -> Certificate:
    """The key of a root, certified by another."""
    name = of.certificate.subject_cn or ""
    return a_ca(name, parent=by, profile=replace(ROOT, name="link"), key=of.private_key).certificate


def trust(*roots: Holder) -> ServerTrust:
    return ServerTrust("".join(one.certificate.pem() for one in roots))


def handed(*more: Certificate) -> list[Certificate]:
    """What a server of the old root hands out while the new one comes."""
    return [OLD.certificate, NEW.certificate, link(NEW, OLD), link(OLD, NEW), *more]


@pytest.fixture
def followed(tmp_path: Path) -> FollowedAnchors:
    return FollowedAnchors(tmp_path / "anchors.pem")


def knows(trusted: ServerTrust, root: Holder) -> bool:
    return root.certificate.pem() in (trusted.pem or "")


def test_a_root_that_a_trusted_one_certified_is_followed(followed: FollowedAnchors) -> None:
    followed.learn(trust(OLD), handed(), NOON)
    assert knows(followed.beyond(trust(OLD)), NEW)
    assert knows(FollowedAnchors(followed.path).beyond(trust(OLD)), NEW)  # after a start


def test_a_root_that_comes_without_a_link_is_not(followed: FollowedAnchors) -> None:
    followed.learn(trust(OLD), [OLD.certificate, NEW.certificate, link(NEW, OTHER), OTHER.certificate], NOON)
    assert followed.beyond(trust(OLD)) == trust(OLD)


@pytest.mark.parametrize("profile", [ISSUING_CA, EDGE_ISSUING_CA], ids=lambda one: one.name)
def test_a_ca_below_a_trusted_root_does_not_become_a_root(
    followed: FollowedAnchors, profile: CertificateProfile
) -> None:
    issuing = a_ca("Issuing", parent=OLD, profile=profile)
    as_root = a_ca("Issuing", key=issuing.private_key)
    followed.learn(trust(OLD), [OLD.certificate, issuing.certificate, as_root.certificate], NOON)
    assert followed.beyond(trust(OLD)) == trust(OLD)


def test_who_trusts_another_root_does_not_follow(followed: FollowedAnchors) -> None:
    followed.learn(trust(OLD), handed(), NOON)
    assert followed.beyond(trust(OTHER)) == trust(OTHER)
    assert followed.beyond(ServerTrust()) == ServerTrust()


def test_a_root_of_a_root_that_was_followed_is_followed(followed: FollowedAnchors) -> None:
    followed.learn(trust(OLD), handed(), NOON)
    followed.learn(trust(OLD), [NEW.certificate, THIRD.certificate, link(THIRD, NEW)], NOON)
    assert knows(followed.beyond(trust(OLD)), THIRD)
    assert knows(followed.beyond(trust(NEW)), THIRD)


def test_a_link_that_has_ended_leads_nowhere(followed: FollowedAnchors) -> None:
    followed.learn(trust(OLD), handed(), NOON + timedelta(days=40 * 365))
    assert followed.beyond(trust(OLD)) == trust(OLD)


def test_a_damaged_file_counts_as_nothing_and_is_learnt_again(followed: FollowedAnchors) -> None:
    followed.path.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    assert followed.beyond(trust(OLD)) == trust(OLD)
    followed.learn(trust(OLD), handed(), NOON)
    assert knows(followed.beyond(trust(OLD)), NEW)


def test_a_server_cannot_fill_the_disk(followed: FollowedAnchors) -> None:
    for _ in range(MAX_STEPS + 4):
        more = a_ca("More")
        followed.learn(trust(OLD), [OLD.certificate, more.certificate, link(more, OLD)], NOON)
    assert followed.path.read_text().count("BEGIN") == 3 * MAX_STEPS


CA_USAGE = (usage("key_cert_sign", "crl_sign"), True)
UNKNOWN = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)


@pytest.mark.parametrize(
    "says",
    [
        [CA_USAGE, (x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]), False)],
        [CA_USAGE, UNKNOWN],
        [(usage("crl_sign"), True)],
    ],
    ids=["for clients alone", "unknown and critical", "may not certify"],
)
@pytest.mark.parametrize("place", ["link", "root"])
def test_what_no_chain_would_take_is_no_link_and_no_root(
    followed: FollowedAnchors, says: list[tuple[x509.ExtensionType, bool]], place: str
) -> None:
    good, key = [CA_USAGE], a_key()
    root = a_certificate(*(says if place == "root" else good), subject="New", key=key, is_ca=True)
    by_old = a_certificate(*(says if place == "link" else good), subject="New", key=key, signer=OLD, is_ca=True)
    followed.learn(trust(OLD), [OLD.certificate, root.certificate, by_old.certificate], NOON)
    assert followed.beyond(trust(OLD)) == trust(OLD)
    sound_root = a_certificate(*good, subject="New", key=key, is_ca=True)
    sound_link = a_certificate(*good, subject="New", key=key, signer=OLD, is_ca=True)
    followed.learn(trust(OLD), [OLD.certificate, sound_root.certificate, sound_link.certificate], NOON)
    assert knows(followed.beyond(trust(OLD)), sound_root)


def test_what_begins_in_the_future_is_not_followed_yet(followed: FollowedAnchors) -> None:
    followed.learn(trust(OLD), handed(), NOON - timedelta(days=20))
    assert followed.beyond(trust(OLD)) == trust(OLD)


def test_what_was_kept_before_and_is_no_link_by_now_does_not_count(followed: FollowedAnchors) -> None:
    key = a_key()
    root = a_certificate(CA_USAGE, subject="New", key=key, is_ca=True)
    bad = a_certificate(CA_USAGE, UNKNOWN, subject="New", key=key, signer=OLD, is_ca=True)
    followed.path.write_text("".join(one.certificate.pem() for one in (OLD, bad, root)))
    assert followed.beyond(trust(OLD)) == trust(OLD)


def test_a_bag_full_of_links_is_a_bounded_amount_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[Certificate] = []
    roots = [a_ca(f"Root {number}") for number in range(40)]
    links = [link(new, old) for new, old in itertools.pairwise(roots)]

    def counted(certificate: Certificate, issuer: Certificate) -> bool:
        checked.append(certificate)
        return is_signed_by(certificate, issuer)

    monkeypatch.setattr(path_validation, "is_signed_by", counted)
    list(steps_in([one.certificate for one in roots] + links, NOON))
    assert 0 < len(checked) <= path_validation.MAX_NEW_SIGNATURES
