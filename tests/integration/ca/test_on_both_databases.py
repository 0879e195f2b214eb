"""The CA's and EST's statements on each real engine."""

from datetime import timedelta
from pathlib import Path

import pytest

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.ca import ca_directory
from birthmark.ca.revocation import CertificateRevokedError
from birthmark.ca.rules.issuance_eligibility import KeyRevokedError
from birthmark.ca.service import CertificateAuthority
from birthmark.est.service import users_and_bootstrap_cas
from birthmark.pki.crl_encoder import RevocationReason
from birthmark.pki.csr import parse_csr
from birthmark.store import open_database, pagination
from support.fakes import NOON, FakeClock, SeededEntropy
from support.pki.ca_world import an_authority
from support.pki.pki_builders import a_ca, a_csr, a_key

pytestmark = pytest.mark.integration
OPERATOR = Principal(PrincipalKind.OPERATOR, "test")


async def test_issue_find_revoke_and_list(database_url: str, tmp_path: Path) -> None:
    clock, entropy = FakeClock(), SeededEntropy()
    made = ca_directory.create(tmp_path / "ca", "Test", now=NOON, entropy=entropy)
    database = await open_database(database_url, clock)
    ca = CertificateAuthority(made, database, clock, entropy)
    leaf, *_ = await ca.issue(parse_csr(a_csr("device-1")), OPERATOR)
    assert await ca.search("device-1") == await ca.search(f"{leaf.serial:x}") == await ca.latest()
    await ca.revocations.certificate(leaf.thumbprint, OPERATOR, RevocationReason.SUPERSEDED)
    found = await ca.find(leaf.thumbprint)
    assert found is not None
    assert (found.revoked_at, found.revocation_reason) == (NOON, RevocationReason.SUPERSEDED)
    assert await ca.crl()
    assert await ca.crl(made.root)
    await database.close()


async def test_a_certificate_renews_until_it_or_its_key_is_taken_back(database_url: str, tmp_path: Path) -> None:
    clock, entropy = FakeClock(), SeededEntropy()
    made = ca_directory.create(tmp_path / "ca", "Test", now=NOON, entropy=entropy)
    database = await open_database(database_url, clock)
    ca = CertificateAuthority(made, database, clock, entropy)
    for name in ("device-1", "device-2"):
        one = parse_csr(a_csr(name))
        leaf, *_ = await ca.issue(one, OPERATOR)
        holder = Principal(PrincipalKind.DEVICE, name, name, leaf.thumbprint)
        shown = await ca.presented(leaf)
        assert shown is not None
        held, key_revoked_at = shown
        assert (held.certificate, key_revoked_at) == (leaf, None)
        await ca.issue(one, holder, issued_certificate=held)
        await ca.issue(parse_csr(a_csr(name)), holder, issued_certificate=held)
        if name == "device-1":
            await ca.revocations.certificate(leaf.thumbprint, OPERATOR, RevocationReason.SUPERSEDED)
        else:
            await ca.revocations.key(leaf, OPERATOR, RevocationReason.KEY_COMPROMISE)
        with pytest.raises((CertificateRevokedError, KeyRevokedError)):
            await ca.issue(one, holder, issued_certificate=held)
        with pytest.raises(CertificateRevokedError):  # also with a key of which nothing is known
            await ca.issue(parse_csr(a_csr(name)), holder, issued_certificate=held)
    assert await ca.presented(made.root.certificate) is None
    await database.close()


async def test_what_came_after_a_certificate_and_was_used_is_found(database_url: str, tmp_path: Path) -> None:
    clock, entropy = FakeClock(), SeededEntropy()
    made = ca_directory.create(tmp_path / "ca", "Test", now=NOON, entropy=entropy)
    database = await open_database(database_url, clock)
    ca = CertificateAuthority(made, database, clock, entropy)
    chain = [(await ca.issue(parse_csr(a_csr("device-1")), OPERATOR))[0]]
    for _ in range(2):
        holder = Principal(PrincipalKind.DEVICE, "device-1", "device-1", chain[-1].thumbprint)
        chain += [(await ca.issue(parse_csr(a_csr("device-1")), holder))[0]]
    first, second, third = [await ca.find(one.thumbprint) for one in chain]
    assert first is not None
    assert second is not None
    parents = [one.thumbprint for one in chain[:2]]
    assert await ca.newer(first, ()) == ([second], frozenset(parents))
    assert await ca.newer(second, ()) == ([], frozenset(parents[1:]))
    assert (await ca.newer(second, [chain[2].thumbprint]))[0] == [third]
    clock.move(timedelta(seconds=1))
    await ca.revocations.certificate(chain[2].thumbprint, OPERATOR, RevocationReason.SUPERSEDED)
    assert await ca.taken_back_since(first) is None
    await ca.revocations.certificate(chain[1].thumbprint, OPERATOR, RevocationReason.KEY_COMPROMISE)
    assert await ca.taken_back_since(first) == clock.now()
    await database.close()


async def test_the_first_ten_names_below_a_certificate_are_told_in_their_order(
    database_url: str, tmp_path: Path
) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        maker = a_ca("Maker").certificate.thumbprint
        for name in [*(f"d-{number:02}" for number in range(11)), "d-00"]:
            bearer = Principal(PrincipalKind.BOOTSTRAP, "maker", name, thumbprint=maker)
            await ca.issue(parse_csr(a_csr(name, key=a_key())), bearer)
        assert await ca.names_below(maker) == [f"d-{number:02}" for number in range(10)]
        assert await ca.names_below(ca.hierarchy.root.certificate.thumbprint) == []


async def test_each_of_very_many_passwords_is_found(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagination, "EACH", 2)
    clock = FakeClock()
    database = await open_database(database_url, clock)
    known = users_and_bootstrap_cas.EstCredentials(database, clock, SeededEntropy())
    for number in range(5):
        await known.add_user(f"u{number}", "p", device_id="Pump-1", actor="ann")
    assert [one.name for one in await known.of_device("pump-1")] == [f"u{number}" for number in range(5)]
    assert [one.name for one in await known.users("u1", 2)] == ["u2", "u3"]
    for number in range(5):
        await known.add_user(f"all{number}", "p", device_id=None, actor="ann")
    assert [one.name for one in await known.for_all()] == [f"all{number}" for number in range(5)]
    await database.close()


async def test_users_and_bootstrap_cas_come_and_go(database_url: str) -> None:
    clock, entropy, maker = FakeClock(), SeededEntropy(), a_ca().certificate
    database = await open_database(database_url, clock)
    known = users_and_bootstrap_cas.EstCredentials(database, clock, entropy)
    user = await known.add_user("u", "p", device_id=None, actor="ann")
    with pytest.raises(users_and_bootstrap_cas.UserExistsError):
        await known.add_user("u", "p", device_id="d", actor="ann")
    assert await known.users("", 10) == [user]
    await known.remove_user("u", actor="ann")
    with pytest.raises(users_and_bootstrap_cas.UserUnknownError):
        await known.remove_user("u", actor="ann")
    for any_name in (False, True):
        accepted = await known.accept_ca(maker, any_name=any_name, actor="ann")
        assert await known.bootstrap_cas() == [accepted]
    await known.remove_ca(maker.thumbprint, actor="ann")
    assert await known.bootstrap_cas() == []
    await database.close()
