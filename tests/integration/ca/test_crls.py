"""Revocation lists from the inventory: whole over any number of pages, made once however many ask."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from birthmark.ca import crls
from birthmark.pki.csr import parse_csr
from support.fakes import NOON, FakeClock
from support.pki.ca_world import OPERATOR, an_authority
from support.pki.pki_builders import a_csr

pytestmark = pytest.mark.integration


async def test_a_list_has_everything_that_was_revoked_and_nothing_twice(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crls, "_PAGE", 3)
    async with an_authority(tmp_path, database_url) as ca:  # all at the same moment: pages end between equals
        issued = [(await ca.issue(parse_csr(a_csr(f"d-{n}")), OPERATOR))[0] for n in range(8)]
        for one in issued[:7]:
            await ca.revocations.certificate(one.thumbprint, OPERATOR)
        listed = x509.load_der_x509_crl(await ca.crl())
        assert sorted(one.serial_number for one in listed) == sorted(one.serial for one in issued[:7])


async def test_of_many_that_ask_after_a_revocation_one_makes_the_list(database_url: str, tmp_path: Path) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        before = (await ca.lists.of(ca.hierarchy.issuing)).number
        leaf, *_ = await ca.issue(parse_csr(a_csr("d")), OPERATOR)
        await ca.revocations.certificate(leaf.thumbprint, OPERATOR)
        made = await asyncio.gather(*(ca.lists.of(ca.hierarchy.issuing) for _ in range(20)))
        assert {one.number for one in made} == {before + 1}
        assert len({id(one.der) for one in made}) == 1, "they have the same bytes, not twenty copies"


async def test_what_another_process_made_is_handed_out(database_url: str, tmp_path: Path) -> None:
    async with an_authority(tmp_path, database_url) as ca:
        first = await ca.lists.of(ca.hierarchy.issuing)
        other = crls.RevocationLists(ca.hierarchy, ca.database, ca.clock)
        leaf, *_ = await ca.issue(parse_csr(a_csr("d")), OPERATOR)
        await ca.revocations.certificate(leaf.thumbprint, OPERATOR)
        second = await other.of(ca.hierarchy.issuing)
        assert (await ca.lists.of(ca.hierarchy.issuing)).der == second.der != first.der


async def test_a_list_of_a_clock_that_was_ahead_is_made_anew_with_a_greater_number(
    database_url: str, tmp_path: Path
) -> None:
    clock = FakeClock(NOON + timedelta(days=30))
    async with an_authority(tmp_path, database_url, clock=clock) as ca:
        ahead = await ca.lists.of(ca.hierarchy.issuing)
        clock.move(-timedelta(days=30))
        made = await ca.lists.of(ca.hierarchy.issuing)
        assert (made.made_at, made.number) == (NOON, ahead.number + 1)
        assert x509.load_der_x509_crl(made.der).last_update_utc == NOON
        assert await ca.lists.of(ca.hierarchy.issuing) is made
