"""What an AWS operation read may have changed when it writes: it decides again, and nothing is left half attached."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from birthmark.awsiot.model import CertificateId, CertificateStatus, PrincipalType, ThingName
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.certificates import CertificateInUseError, UnknownCertificateError
from birthmark.awsiot.service.policies import PolicyInUseError, TooManyPoliciesError, UnknownPolicyError
from birthmark.awsiot.service.thing_principals import ExclusiveThingError
from birthmark.awsiot.service.thing_types import ThingTypeInUseError, UnknownThingTypeError
from birthmark.awsiot.service.things import ThingInUseError, UnknownThingError
from support.aws.account import ME, POLICY, an_aws_account
from support.fakes import FakeClock
from support.pki.pki_builders import a_device
from support.store.between import before_the_next_commit

pytestmark = pytest.mark.integration
ANY, ALONE = PrincipalType.NON_EXCLUSIVE, PrincipalType.EXCLUSIVE
Act = Callable[[], Awaitable[object]]


class World:
    """An account with two things, a certificate and a policy."""

    def __init__(self, aws: AwsIot, clock: FakeClock, certificate_id: CertificateId) -> None:
        self.aws, self.clock, self.certificate_id = aws, clock, certificate_id

    def meanwhile(self, act: Act) -> None:
        before_the_next_commit(self.aws.things.database, act)

    async def attach(self, thing: str, kind: PrincipalType = ANY) -> None:
        await self.aws.attachments.attach(thing, self.certificate_id, kind, **ME)

    async def attach_policy(self, name: str = "p") -> None:
        await self.aws.policies.attach(name, self.certificate_id, **ME)

    async def things(self) -> list[str]:
        return [name for name, _ in (await self.aws.attachments.things(self.certificate_id, "", 10)).items]

    async def delete_certificate(self, *, force: bool = False) -> None:
        await self.aws.certificates.delete(self.certificate_id, force=force, **ME)


@asynccontextmanager
async def a_world(database_url: str, status: CertificateStatus = CertificateStatus.ACTIVE) -> AsyncIterator[World]:
    async with an_aws_account(database_url) as (aws, clock):
        for name in ("a", "b"):
            await aws.things.create(ThingName(name), {}, None, None, **ME)
        known = await aws.certificates.register(a_device().certificate.pem(), status, **ME)
        await aws.policies.create("p", POLICY, **ME)
        yield World(aws, clock, known.id)


async def test_of_two_exclusive_attachments_exactly_one_is_made(database_url: str) -> None:
    async with a_world(database_url) as world:
        world.meanwhile(lambda: world.attach("b", ALONE))
        with pytest.raises(ExclusiveThingError):
            await world.attach("a", ALONE)
        assert await world.things() == ["b"]


async def test_a_certificate_that_became_anothers_own_is_not_shared(database_url: str) -> None:
    async with a_world(database_url) as world:
        world.meanwhile(lambda: world.attach("b", ALONE))
        with pytest.raises(ExclusiveThingError):
            await world.attach("a")
        assert await world.things() == ["b"]


async def test_a_thing_that_went_gets_no_certificate(database_url: str) -> None:
    async with a_world(database_url) as world:
        world.meanwhile(lambda: world.aws.things.delete("a", None, **ME))
        with pytest.raises(UnknownThingError):
            await world.attach("a")
        assert await world.things() == []


async def test_a_certificate_that_went_is_attached_to_nothing(database_url: str) -> None:
    async with a_world(database_url, CertificateStatus.INACTIVE) as world:
        world.meanwhile(world.delete_certificate)
        with pytest.raises(UnknownCertificateError):
            await world.attach("a")
        assert (await world.aws.attachments.principals("a", "", 10)).items == []


async def test_a_thing_that_got_a_certificate_stays(database_url: str) -> None:
    async with a_world(database_url) as world:
        world.meanwhile(lambda: world.attach("a"))
        with pytest.raises(ThingInUseError):
            await world.aws.things.delete("a", None, **ME)
        assert await world.things() == ["a"]


@pytest.mark.parametrize("force", [False, True])
async def test_a_certificate_that_was_attached_to_a_thing_stays(database_url: str, *, force: bool) -> None:
    async with a_world(database_url, CertificateStatus.INACTIVE) as world:
        world.meanwhile(lambda: world.attach("a"))
        with pytest.raises(CertificateInUseError):
            await world.delete_certificate(force=force)
        assert await world.things() == ["a"]


async def test_a_certificate_that_got_a_policy_stays_and_keeps_it(database_url: str) -> None:
    async with a_world(database_url, CertificateStatus.INACTIVE) as world:
        world.meanwhile(world.attach_policy)
        with pytest.raises(CertificateInUseError):
            await world.delete_certificate()
        assert (await world.aws.policies.attached(world.certificate_id, "", 10)).items == ["p"]


async def test_a_policy_that_went_is_not_attached(database_url: str) -> None:
    async with a_world(database_url) as world:
        world.meanwhile(lambda: world.aws.policies.delete("p", **ME))
        with pytest.raises(UnknownPolicyError):
            await world.attach_policy()
        assert (await world.aws.policies.attached(world.certificate_id, "", 10)).items == []


async def test_a_policy_that_was_attached_stays(database_url: str) -> None:
    async with a_world(database_url) as world:
        world.meanwhile(world.attach_policy)
        with pytest.raises(PolicyInUseError):
            await world.aws.policies.delete("p", **ME)


async def test_a_policy_that_got_a_version_stays(database_url: str) -> None:
    async with a_world(database_url) as world:
        world.meanwhile(lambda: world.aws.policies.add_version("p", POLICY, as_default=False, **ME))
        with pytest.raises(PolicyInUseError):
            await world.aws.policies.delete("p", **ME)


async def test_of_two_policies_for_the_last_place_exactly_one_is_attached(database_url: str) -> None:
    async with a_world(database_url) as world:
        for number in range(10):
            await world.aws.policies.create(f"p{number}", POLICY, **ME)
        for number in range(9):
            await world.attach_policy(f"p{number}")
        world.meanwhile(lambda: world.attach_policy("p"))
        with pytest.raises(TooManyPoliciesError):
            await world.attach_policy("p9")


async def test_a_type_that_got_a_thing_stays_and_one_that_was_deprecated_gets_none(database_url: str) -> None:
    async with a_world(database_url) as world:
        types = world.aws.things.types
        await types.create(ThingName("pump"), {}, **ME)
        new: dict[str, Any] = {"attributes": {}, "type_name": "pump", "billing_group": None, **ME}
        world.meanwhile(lambda: types.deprecate("pump", undo=False, **ME))
        with pytest.raises(ThingTypeInUseError):
            await world.aws.things.create(ThingName("c"), **new)
        world.clock.move(timedelta(minutes=6))

        async def somebody_takes_it_back_and_uses_it() -> None:
            await types.deprecate("pump", undo=True, **ME)
            await world.aws.things.create(ThingName("d"), **new)

        world.meanwhile(somebody_takes_it_back_and_uses_it)
        with pytest.raises(ThingTypeInUseError):
            await types.delete("pump", **ME)
        world.meanwhile(lambda: world.aws.things.delete("d", None, **ME))
        with pytest.raises((ThingTypeInUseError, UnknownThingTypeError, UnknownThingError)):
            await world.aws.things.update("d", None, "pump", merge=False, remove_type=False, expected=None, **ME)
