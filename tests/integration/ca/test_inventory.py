"""The inventory page by page, on each real engine; and how the database finds its pages."""

import asyncio
import sqlite3
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from birthmark.ca.certificate_inventory_queries import CertificateQuery, Inventory, statement_for
from birthmark.ca.service import CertificateAuthority
from birthmark.clock_and_entropy import SystemClock
from birthmark.pki.certificate_profiles import DEVICE, EST_IDENTITY, FOR_REQUESTS, LDEVID
from birthmark.pki.certificates import Thumbprint
from birthmark.pki.csr import parse_csr
from birthmark.store import open_database
from birthmark.store.pagination import PageInvalidError
from support.fakes import FakeClock
from support.pki.ca_world import OPERATOR, an_authority
from support.pki.pki_builders import a_csr, a_key

pytestmark = pytest.mark.integration
KEYS = [a_key() for _ in range(8)]


async def filled(ca: CertificateAuthority) -> Inventory:
    """Eight devices that end one day after another, two of another profile, one revoked."""
    for number, key in enumerate(KEYS):
        profile = EST_IDENTITY if number % 4 == 3 else DEVICE
        request = parse_csr(a_csr(f"d-{number}", key=key))
        (leaf, *_) = await ca.issue(request, OPERATOR, profile, lifetime=timedelta(days=number + 1))
        if number == 5:
            await ca.revocations.certificate(leaf.thumbprint, OPERATOR)
    return Inventory(ca.database, ca.clock)


async def names(inventory: Inventory, wanted: CertificateQuery) -> list[str]:
    """Return the devices in order, read by pages of two; our own certificates are left out."""
    found: list[str] = []
    page = await inventory.page(wanted, limit=2)
    found += [one.device_id for one in page.items]
    while page.last is not None:
        page = await inventory.page(wanted, after=page.last, limit=2)
        found += [one.device_id for one in page.items]
    assert len(found) == len(set(found))
    return [name for name in found if name.startswith("d-")]


async def test_every_question_is_answered_in_the_order_of_ends(database_url: str, tmp_path: Path) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        inventory = await filled(ca)
        assert isinstance(ca.clock, FakeClock)
        assert await names(inventory, CertificateQuery()) == [f"d-{number}" for number in range(8)]
        assert await names(inventory, CertificateQuery(is_revoked=True)) == ["d-5"]
        assert await names(inventory, CertificateQuery(profile="est_identity")) == ["d-3", "d-7"]
        issuer = ca.certificates_for(EST_IDENTITY)[0].thumbprint
        assert await names(inventory, CertificateQuery(issuer=issuer)) == ["d-3", "d-7"]
        ca.clock.move(timedelta(days=4, hours=12))
        assert await names(inventory, CertificateQuery(is_expired=True)) == ["d-0", "d-1", "d-2", "d-3"]
        assert await names(inventory, CertificateQuery(expiring=timedelta(days=3))) == ["d-4", "d-6"]
        assert await names(inventory, CertificateQuery(expiring=timedelta(days=30), profile="device")) == ["d-4", "d-6"]


async def test_those_that_end_between_two_moments_are_found_with_or_without_what_was_taken_back(
    database_url: str, tmp_path: Path
) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        inventory = await filled(ca)
        page = await inventory.page(CertificateQuery())
        ends = {one.device_id: one.certificate.not_after for one in page.items}
        begin, end = ends["d-3"], ends["d-6"]
        assert await names(inventory, CertificateQuery(ends_from=begin, ends_to=end)) == ["d-3", "d-4", "d-5"]
        assert await names(inventory, CertificateQuery(ends_from=begin, ends_to=end, is_unrevoked=True)) == [
            "d-3",
            "d-4",
        ]
        assert await names(inventory, CertificateQuery(ends_to=begin, expiring=timedelta(days=2, hours=12))) == [
            "d-0",
            "d-1",
        ]
        assert await names(inventory, CertificateQuery(ends_from=end, ends_to=begin)) == []


async def test_our_own_cas_are_in_it_and_not_among_the_latest(database_url: str, tmp_path: Path) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        await ca.issue(parse_csr(a_csr()), OPERATOR, LDEVID)
        every = await Inventory(ca.database, ca.clock).every(CertificateQuery())
        assert [one.profile for one in every] == ["ldevid", "issuing_ca"]
        assert [one.profile for one in await ca.latest()] == ["ldevid"]


@pytest.mark.parametrize("after", ["x", "1", "1.zz", ".", "9" * 400 + ".00"])
async def test_a_marker_of_others_is_refused_or_names_a_place(tmp_path: Path, after: str) -> None:
    async with an_authority(tmp_path) as ca:
        try:
            page = await Inventory(ca.database, ca.clock).page(CertificateQuery(), after=after)
        except PageInvalidError:
            pass
        else:
            assert page.items == []


def plan_of(wanted: CertificateQuery, path: Path) -> Sequence[str]:
    async def made() -> None:
        await (await open_database(f"sqlite:///{path}", SystemClock())).close()

    asyncio.run(made())
    sql = statement_for(wanted).compiled("sqlite").sql
    with sqlite3.connect(path) as database:
        return [row[3] for row in database.execute(f"EXPLAIN QUERY PLAN {sql}", [None] * sql.count("?"))]


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (CertificateQuery(), "ca_certificates_end"),
        (CertificateQuery(is_expired=True), "ca_certificates_end"),
        (CertificateQuery(expiring=timedelta(days=1)), "ca_certificates_end"),
        (CertificateQuery(is_unrevoked=True), "ca_certificates_end"),
        (CertificateQuery(is_revoked=True), "ca_certificates_revoked_end"),
        (CertificateQuery(profile="device"), "ca_certificates_profile_end"),
        (CertificateQuery(issuer=Thumbprint(b"x")), "ca_certificates_issuer_end"),
    ],
)
def test_each_question_walks_along_an_index(wanted: CertificateQuery, index: str, tmp_path: Path) -> None:
    (plan,) = plan_of(wanted, tmp_path / "x.db")
    assert plan.startswith(f"SEARCH ca_certificates USING INDEX {index} (")


def test_every_profile_is_one_that_can_be_asked_for() -> None:
    assert {"device", "est_identity", "ldevid"} <= FOR_REQUESTS.keys()
