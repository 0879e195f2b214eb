"""Which new root is followed: one that a root that is trusted has certified, for those who trust that root."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from birthmark.agent.anchors import MAX_STEPS, FollowedAnchors
from birthmark.links.identity import Trust
from birthmark.pki.certificates import Certificate
from birthmark.pki.profiles import EDGE_ISSUING_CA, ISSUING_CA, ROOT, Profile
from fakes import NOON
from pki_builders import Holder, a_ca

OLD, NEW, THIRD, OTHER = a_ca("Old Root"), a_ca("New Root"), a_ca("Third Root"), a_ca("Other Root")


def link(of: Holder, by: Holder) -> Certificate:
    """The key of a root, certified by another."""
    name = of.certificate.subject_cn or ""
    return a_ca(name, parent=by, profile=replace(ROOT, name="link"), key=of.private_key).certificate


def trust(*roots: Holder) -> Trust:
    return Trust("".join(one.certificate.pem() for one in roots))


def handed(*more: Certificate) -> list[Certificate]:
    """What a server of the old root hands out while the new one comes."""
    return [OLD.certificate, NEW.certificate, link(NEW, OLD), link(OLD, NEW), *more]


@pytest.fixture
def followed(tmp_path: Path) -> FollowedAnchors:
    return FollowedAnchors(tmp_path / "anchors.pem")


def knows(trusted: Trust, root: Holder) -> bool:
    return root.certificate.pem() in (trusted.pem or "")


def test_a_root_that_a_trusted_one_certified_is_followed(followed: FollowedAnchors) -> None:
    followed.learn(trust(OLD), handed(), NOON)
    assert knows(followed.beyond(trust(OLD)), NEW)
    assert knows(FollowedAnchors(followed.path).beyond(trust(OLD)), NEW)  # after a start


def test_a_root_that_comes_without_a_link_is_not(followed: FollowedAnchors) -> None:
    followed.learn(trust(OLD), [OLD.certificate, NEW.certificate, link(NEW, OTHER), OTHER.certificate], NOON)
    assert followed.beyond(trust(OLD)) == trust(OLD)


@pytest.mark.parametrize("profile", [ISSUING_CA, EDGE_ISSUING_CA], ids=lambda one: one.name)
def test_a_ca_below_a_trusted_root_does_not_become_a_root(followed: FollowedAnchors, profile: Profile) -> None:
    issuing = a_ca("Issuing", parent=OLD, profile=profile)
    as_root = a_ca("Issuing", key=issuing.private_key)
    followed.learn(trust(OLD), [OLD.certificate, issuing.certificate, as_root.certificate], NOON)
    assert followed.beyond(trust(OLD)) == trust(OLD)


def test_who_trusts_another_root_does_not_follow(followed: FollowedAnchors) -> None:
    followed.learn(trust(OLD), handed(), NOON)
    assert followed.beyond(trust(OTHER)) == trust(OTHER)
    assert followed.beyond(Trust()) == Trust()


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
