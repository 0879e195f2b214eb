"""Which certificates of refusals are kept."""

import pytest

from birthmark.refusals.presented_certificates import MOST, MOST_OF_ONE, CertificateNotKeptError, PresentedCertificates
from support.pki.pki_builders import a_device

NEW = [a_device(common_name=f"device-{number}").certificate for number in range(MOST_OF_ONE + 1)]


def is_kept(presented: PresentedCertificates, number: int) -> bool:
    try:
        return presented.get(NEW[number].thumbprint) == NEW[number]
    except CertificateNotKeptError:
        return False


def test_one_is_found_by_its_thumbprint() -> None:
    presented = PresentedCertificates()
    presented.add("192.0.2.1", NEW[0])
    assert is_kept(presented, 0)
    with pytest.raises(CertificateNotKeptError, match="not stored"):
        presented.get(NEW[1].thumbprint)


def test_of_an_address_the_newest_are_kept() -> None:
    presented = PresentedCertificates()
    for one in NEW:
        presented.add("192.0.2.1", one)
    assert [is_kept(presented, number) for number in (0, 1, MOST_OF_ONE)] == [False, True, True]


def test_who_shows_many_pushes_out_nobody_else_s() -> None:
    presented = PresentedCertificates()
    presented.add("192.0.2.1", NEW[0])
    for one in NEW[1:]:
        presented.add("192.0.2.2", one)
    assert is_kept(presented, 0)


def test_one_that_is_shown_again_is_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("birthmark.refusals.presented_certificates.MOST", 2)
    presented = PresentedCertificates()
    for number in (0, 1, 0, 2):
        presented.add("192.0.2.1", NEW[number])
    assert [is_kept(presented, number) for number in (0, 1, 2)] == [True, False, True]
    assert MOST > MOST_OF_ONE


def test_one_that_is_too_large_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("birthmark.refusals.presented_certificates.MAX_BYTES", 10)
    presented = PresentedCertificates()
    presented.add("192.0.2.1", NEW[0])
    assert not is_kept(presented, 0)
