"""Roles, tokens and approvals at a hub or a provisioning service: none where there is none, and none after its end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

import birthmark.server.all_tables  # noqa: F401 - all tables
from birthmark.auth.permission_statements import Right
from birthmark.auth.principals import Caller
from birthmark.dps.service import Instances
from birthmark.errors import BirthmarkError
from birthmark.iam.approvals import ApprovalRequiredError, Approvals
from birthmark.iam.approvals_model import ApprovalRequest
from birthmark.iam.model import UserRole
from birthmark.iam.role_scope_ports import PlaceMissingError
from birthmark.iam.service import People
from birthmark.iothub.service.hubs_and_authorization import Hubs
from birthmark.late_reference import Ref
from birthmark.server.composition_root import RoleScopes
from birthmark.store import Database, open_database
from birthmark.store.core_tables import audit
from birthmark.store.table_statements import find
from support.fakes import FakeClock, SeededEntropy

pytestmark = pytest.mark.integration
ME: Any = {"actor": "operator"}
HERE = "192.0.2.7"
ALL_AUDIT = find(audit, audit.c.seq >= 0, order=audit.c.seq)
BOTH = ["hub/north", "dps/north"]


@dataclass
class World:
    people: People
    hubs: Hubs
    instances: Instances
    approvals: Approvals
    database: Database

    async def make(self, place: str) -> None:
        if place.startswith("hub/"):
            await self.hubs.create("north", "north.example", **ME)
        else:
            await self.instances.create("north", "north.example", **ME)

    async def remove(self, place: str) -> None:
        await (self.hubs if place.startswith("hub/") else self.instances).delete("north", **ME)

    async def signed_in(self, name: str) -> Caller:
        code, _ = await self.people.invite(name, **ME)
        return self.people.caller((await self.people.redeem(code, "laptop", HERE)).text, HERE)

    def may(self, name: str, place: str) -> bool:
        return self.people.rights(name).allow(Right.READ, place)


@asynccontextmanager
async def world_of(url: str, seed: int = 0, worker: str = "main") -> AsyncIterator[World]:
    clock, entropy = FakeClock(), SeededEntropy(seed)
    database = await open_database(url, clock, worker=worker)
    hubs_there: Ref[Hubs] = Ref()
    instances_there: Ref[Instances] = Ref()
    people = People(database, clock, entropy, places=RoleScopes(hubs_there, instances_there))
    hubs = hubs_there.fill(Hubs(database, clock, entropy, roles=people))
    instances = instances_there.fill(Instances(database, clock, entropy, roles=people))
    for one in (people, hubs, instances):
        await one.load()
    try:
        yield World(people, hubs, instances, Approvals(database, clock, entropy, people), database)
    finally:
        for one in (people, hubs, instances):
            await one.stop()
        await database.close()


@pytest.mark.parametrize("place", BOTH)
async def test_no_role_outlives_its_place(database_url: str, place: str) -> None:
    async with world_of(database_url) as world:
        await world.make(place)
        await world.people.create("anna", UserRole.VIEWER, place, **ME)
        await world.people.create("bert", UserRole.ADMIN, "*", **ME)
        assert world.may("anna", place)
        await world.remove(place)
        assert not world.may("anna", place)
        await world.make(place)
        assert not world.may("anna", place)
        assert world.may("bert", place)
        ended = await world.database.all(ALL_AUDIT)
        assert ("people.role_remove", "anna", "operator") in {
            (one["action"], one["subject"], one["actor"]) for one in ended
        }
    async with world_of(database_url, seed=1) as again:
        assert not again.may("anna", place)


@pytest.mark.parametrize("place", BOTH)
async def test_a_token_for_one_place_ends_with_it(database_url: str, place: str) -> None:
    async with world_of(database_url) as world:
        await world.make(place)
        await world.people.create("bert", UserRole.ADMIN, "*", **ME)
        lifetime = timedelta(days=1)
        await world.people.add_token("bert", "one", lifetime, UserRole.VIEWER, place, **ME)
        kept = await world.people.add_token("bert", "all", lifetime, UserRole.VIEWER, None, **ME)
        await world.remove(place)
        await world.make(place)
        assert [one.id for one in world.people.tokens("bert")] == [kept.token.id]


@pytest.mark.parametrize("place", BOTH)
async def test_no_approval_outlives_what_it_is_about(database_url: str, place: str) -> None:
    async with world_of(database_url) as world:
        await world.make(place)
        for name in ("anna", "bert"):
            await world.people.create(name, UserRole.ADMIN, "*", **ME)
        anna, bert = await world.signed_in("anna"), await world.signed_in("bert")
        wanted = ApprovalRequest("Remove it.", "DELETE", f"/{place}", "{}", Right.ADMINISTER, place)
        with pytest.raises(ApprovalRequiredError) as asked:
            await world.approvals.check(anna, wanted)
        await world.approvals.decide(asked.value.id, bert, is_approved=True)
        await world.remove(place)
        await world.make(place)
        with pytest.raises(ApprovalRequiredError):
            await world.approvals.check(anna, wanted)


@pytest.mark.parametrize("place", BOTH)
async def test_nobody_is_given_or_asks_for_anything_where_nothing_is(database_url: str, place: str) -> None:
    async with world_of(database_url) as world:
        await world.people.create("anna", UserRole.ADMIN, "*", **ME)
        anna, lifetime = await world.signed_in("anna"), timedelta(days=1)
        wanted = ApprovalRequest("Remove it.", "DELETE", f"/{place}", "{}", Right.ADMINISTER, place)
        for doing in (
            world.people.create("bert", UserRole.VIEWER, place, **ME),
            world.people.grant("anna", UserRole.VIEWER, place, **ME),
            world.people.add_token("anna", "", lifetime, UserRole.VIEWER, place, **ME),
            world.approvals.check(anna, wanted),
        ):
            with pytest.raises(PlaceMissingError):
                await doing
        assert not world.people.has_user("bert")


@pytest.mark.parametrize("place", BOTH)
async def test_a_place_that_another_worker_removes_meanwhile_is_none(database_url: str, place: str) -> None:
    """This worker has not heard of it yet: the commit says so."""
    async with world_of(database_url) as world, world_of(database_url, 1, "other") as other:
        await world.make(place)
        await other.hubs.load()
        await other.instances.load()
        await world.people.create("anna", None, "*", **ME)
        await other.people.load()
        await world.remove(place)
        with pytest.raises(BirthmarkError) as refused:
            await other.people.grant("anna", UserRole.VIEWER, place, **ME)
        assert refused.value.code == "people.place_missing"


async def test_what_was_approved_is_done_once_also_where_two_workers_are_asked_at_once(database_url: str) -> None:
    async with world_of(database_url) as world, world_of(database_url, 1, "other") as other:
        for name in ("anna", "bert"):
            await world.people.create(name, UserRole.ADMIN, "*", **ME)
        anna, bert = await world.signed_in("anna"), await world.signed_in("bert")
        await other.people.load()
        wanted = ApprovalRequest("Revoke it.", "POST", "/keys/revoke", "{}", Right.REVOKE, "server")
        with pytest.raises(ApprovalRequiredError) as asked:
            await world.approvals.check(anna, wanted)
        await world.approvals.decide(asked.value.id, bert, is_approved=True)
        both = [one.approvals.check(anna, wanted) for one in (world, other, world, other)]
        found = await asyncio.gather(*both, return_exceptions=True)
        assert found.count(None) == 1
        assert all(isinstance(one, BirthmarkError) for one in found if one is not None)
