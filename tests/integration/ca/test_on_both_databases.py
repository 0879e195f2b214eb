"""The CA's and EST's statements on each real engine."""

from pathlib import Path
from typing import Any

import pytest

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.ca import hierarchy
from birthmark.ca.service import CertificateAuthority
from birthmark.est.service import users
from birthmark.pki.crl import RevocationReason
from birthmark.pki.csr import parse_csr
from birthmark.store import open_database
from fakes import NOON, FakeClock, SeededEntropy
from pki_builders import a_ca, a_csr

pytestmark = pytest.mark.integration
OPERATOR = Principal(PrincipalKind.OPERATOR, "test")


async def test_issue_find_revoke_and_list(database_url: str, tmp_path: Path) -> None:
    clock, entropy = FakeClock(), SeededEntropy()
    made = hierarchy.create(tmp_path / "ca", "Test", now=NOON, entropy=entropy)
    database = await open_database(database_url, clock)
    ca = CertificateAuthority(made, database, clock, entropy)
    leaf, *_ = await ca.issue(parse_csr(a_csr("device-1")), OPERATOR)
    assert await ca.search("device-1") == await ca.search(f"{leaf.serial:x}") == await ca.latest()
    await ca.revoke(leaf.thumbprint, OPERATOR, RevocationReason.SUPERSEDED)
    found = await ca.find(leaf.thumbprint)
    assert found is not None
    assert (found.revoked_at, found.revocation_reason) == (NOON, RevocationReason.SUPERSEDED)
    assert await ca.crl()
    assert await ca.crl(made.root)
    await database.close()


async def test_users_and_bootstrap_cas_come_and_go(database_url: str) -> None:
    clock, entropy, maker = FakeClock(), SeededEntropy(), a_ca().certificate
    database = await open_database(database_url, clock)
    options: dict[str, Any] = {"principal": OPERATOR, "database": database}
    user = await users.add_user("u", "p", device_id=None, clock=clock, entropy=entropy, **options)
    with pytest.raises(users.UserExistsError):
        await users.add_user("u", "p", device_id="d", clock=clock, entropy=entropy, **options)
    assert await users.list_users(database) == [user]
    await users.remove_user("u", **options)
    with pytest.raises(users.UserUnknownError):
        await users.remove_user("u", **options)
    for any_name in (False, True):
        accepted = await users.accept_bootstrap_ca(maker, any_name=any_name, clock=clock, **options)
        assert await users.list_bootstrap_cas(database) == [accepted]
    await users.remove_bootstrap_ca(maker.thumbprint, **options)
    assert await users.list_bootstrap_cas(database) == []
    await database.close()
