"""Which expired certificate still proves who a device is: the whole table of allow and deny."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from birthmark.ca.model import IssuedCertificate
from birthmark.est.model import LateRenewalRule
from birthmark.est.rules.late_renewal import CloneSuspectedError, GracePeriodExpiredError, check_late_renewal
from birthmark.pki.certificates import Thumbprint
from birthmark.pki.path_validation import CertificateExpiredError
from support.fakes import NOON
from support.pki.pki_builders import a_ca, a_device

CA = a_ca("Ours")
DAY = timedelta(days=1)
LIFETIMES = {"1 day": DAY, "30 days": 30 * DAY, "2 years": 730 * DAY}
NEVER: dict[str, LateRenewalRule] = {}
BY_ITSELF = {"device": LateRenewalRule(30 * DAY)}
BY_A_WORD = {"device": LateRenewalRule(30 * DAY, approval=True)}
OF_ANOTHER_PROFILE = {"gateway": LateRenewalRule(30 * DAY)}


def came_back(
    one: IssuedCertificate,
    rules: dict[str, LateRenewalRule],
    now: datetime,
    newer: Sequence[IssuedCertificate] = (),
    in_use: Sequence[Thumbprint] = (),
) -> LateRenewalRule | None:
    parents = {other.parent for other in newer if other.parent is not None}
    return check_late_renewal(one, rules, now, newer=newer, parents=parents, in_use=in_use)


def issued(lifetime: timedelta, now: datetime = NOON) -> IssuedCertificate:
    return IssuedCertificate(a_device(CA, now=now, lifetime=lifetime).certificate, "device-1", "device", "est_user:a")


@pytest.mark.parametrize("lifetime", LIFETIMES.values(), ids=LIFETIMES)
@pytest.mark.parametrize(
    ("rules", "days_after", "comes_back"),
    [
        (NEVER, -0.5, "alive"),
        (NEVER, 0.5, CertificateExpiredError),
        (NEVER, 400, CertificateExpiredError),
        (BY_ITSELF, -0.5, "alive"),
        (BY_ITSELF, 0.5, "by itself"),
        (BY_ITSELF, 29.9, "by itself"),
        (BY_ITSELF, 30.1, GracePeriodExpiredError),
        (BY_A_WORD, 29.9, "by a word"),
        (BY_A_WORD, 30.1, GracePeriodExpiredError),
        (OF_ANOTHER_PROFILE, 0.5, CertificateExpiredError),
    ],
)
def test_the_rule_of_the_certificates_profile_decides(
    lifetime: timedelta, rules: dict[str, LateRenewalRule], days_after: float, comes_back: object
) -> None:
    one = issued(lifetime)
    now = one.certificate.not_after + days_after * DAY
    if isinstance(comes_back, type):
        with pytest.raises(comes_back):
            came_back(one, rules, now)
        return
    rule = came_back(one, rules, now)
    assert {"alive": None, "by itself": False, "by a word": True}[str(comes_back)] == (rule and rule.approval)


def test_one_that_has_not_begun_proves_its_device_as_this_servers_clock_was_ahead() -> None:
    """With a token for once there would be no other way back: DPS and the hub take it when it begins."""
    assert came_back(issued(DAY), BY_ITSELF, NOON - DAY) is None


OLD = issued(DAY)
CHILD = replace(issued(DAY, NOON + DAY), parent=OLD.certificate.thumbprint)
GRANDCHILD = replace(issued(DAY, NOON + 2 * DAY), parent=CHILD.certificate.thumbprint)
AFTER = NOON + 5 * DAY


def test_a_device_whose_renewal_was_answered_and_never_stored_comes_back() -> None:
    assert came_back(OLD, BY_ITSELF, AFTER, newer=[CHILD]) is not None


def test_a_certificate_whose_successor_renewed_does_not_come_back() -> None:
    with pytest.raises(CloneSuspectedError):
        came_back(OLD, BY_ITSELF, AFTER, newer=[CHILD, GRANDCHILD])


def test_a_device_certificate_whose_successor_registered_does_not_come_back() -> None:
    one, other = replace(OLD, registered_at=NOON), replace(CHILD, registered_at=NOON)
    with pytest.raises(CloneSuspectedError):
        came_back(one, BY_ITSELF, AFTER, newer=[other])
    with pytest.raises(CloneSuspectedError):
        came_back(one, BY_ITSELF, AFTER, newer=[CHILD], in_use=[CHILD.certificate.thumbprint])


def test_a_device_certificate_whose_successor_by_the_same_identity_registered_does_not_come_back() -> None:
    identity = a_device(CA).certificate.thumbprint
    one, other = replace(OLD, parent=identity), replace(CHILD, parent=identity)
    with pytest.raises(CloneSuspectedError):
        came_back(one, BY_ITSELF, AFTER, newer=[other], in_use=[other.certificate.thumbprint])
    with pytest.raises(CloneSuspectedError):
        came_back(one, BY_ITSELF, AFTER, newer=[replace(other, registered_at=NOON)])


def test_an_est_identity_is_not_replaced_by_the_device_certificates_it_asked_for() -> None:
    registered = replace(CHILD, registered_at=NOON)
    assert came_back(OLD, BY_ITSELF, AFTER, newer=[registered]) is not None
    assert came_back(OLD, BY_ITSELF, AFTER, newer=[registered, GRANDCHILD]) is not None
    by_hub = [CHILD.certificate.thumbprint]
    assert came_back(OLD, BY_ITSELF, AFTER, newer=[CHILD, GRANDCHILD], in_use=by_hub) is not None


def test_an_est_identity_is_not_replaced_by_a_device_certificate_of_the_same_birth_certificate() -> None:
    birth = a_device(CA).certificate.thumbprint
    identity, device = replace(OLD, parent=birth), replace(CHILD, parent=birth, registered_at=NOON)
    others = [device, replace(GRANDCHILD, parent=OLD.certificate.thumbprint)]
    assert came_back(identity, BY_ITSELF, AFTER, newer=others) is not None


def test_what_is_on_record_under_the_expired_certificate_itself_is_no_clone() -> None:
    one = replace(OLD, registered_at=NOON)
    assert came_back(one, BY_ITSELF, AFTER, newer=[CHILD], in_use=[OLD.certificate.thumbprint]) is not None
