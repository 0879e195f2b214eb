"""Two requests at one moment, each at a worker of its own, of which one must exclude the other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass

import pytest

from birthmark.awsiot.model import CertificateId, CertificateStatus, PrincipalType, ThingName
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.policies import MAX_ATTACHED
from birthmark.errors import BirthmarkError
from birthmark.store import open_database
from support.aws.account import ME, POLICY, an_account, an_aws_account
from support.pki.pki_builders import a_ca, a_device

pytestmark = pytest.mark.integration
ROUNDS = 30
_MAKER = a_ca("Maker")


@dataclass
class Pair:
    """The account as each of two workers has it."""

    here: AwsIot
    there: AwsIot

    async def policies(self, *names: str) -> None:
        for name in names:
            await self.here.policies.create(name, POLICY, **ME)

    async def certificate(self, number: int, status: CertificateStatus = CertificateStatus.INACTIVE) -> CertificateId:
        pem = a_device(_MAKER, f"device-{number}").certificate.pem()
        return (await self.here.certificates.register(pem, status, **ME)).id

    async def thing(self, name: str) -> ThingName:
        return (await self.here.things.create(ThingName(name), {}, None, None, **ME)).name


@contextlib.asynccontextmanager
async def a_pair(url: str) -> AsyncIterator[Pair]:
    async with an_aws_account(url) as (here, clock), contextlib.AsyncExitStack() as stack:
        database = await open_database(url, clock, worker="w2")
        stack.push_async_callback(database.close)
        yield Pair(here, an_account(database, clock))


async def both(*acts: Awaitable[object]) -> int:
    """Return how many of these were done."""
    done = await asyncio.gather(*acts, return_exceptions=True)
    assert all(isinstance(one, BirthmarkError) for one in done if isinstance(one, BaseException)), done
    return sum(not isinstance(one, BaseException) for one in done)


async def test_a_policy_that_is_being_attached_is_not_deleted(postgres_url: str) -> None:
    async with a_pair(postgres_url) as pair:
        certificate = await pair.certificate(0)
        for number in range(ROUNDS):
            await pair.policies(name := f"p{number}")
            attach, delete = pair.here.policies.attach(name, certificate, **ME), pair.there.policies.delete(name, **ME)
            assert await both(attach, delete) == 1
            await pair.here.policies.detach(name, certificate, **ME)


async def test_a_certificate_that_gets_a_policy_is_not_deleted(postgres_url: str) -> None:
    async with a_pair(postgres_url) as pair:
        await pair.policies("p")
        for number in range(ROUNDS):
            known = await pair.certificate(number)
            attach = pair.here.policies.attach("p", known, **ME)
            assert await both(attach, pair.there.certificates.delete(known, force=False, **ME)) == 1


async def test_a_thing_that_gets_a_certificate_is_not_deleted(postgres_url: str) -> None:
    async with a_pair(postgres_url) as pair:
        known = await pair.certificate(0)
        for number in range(ROUNDS):
            thing = await pair.thing(f"t{number}")
            attach = pair.here.attachments.attach(thing, known, PrincipalType.NON_EXCLUSIVE, **ME)
            assert await both(attach, pair.there.things.delete(thing, None, **ME)) == 1


async def test_a_certificate_belongs_to_one_thing_exclusively(postgres_url: str) -> None:
    async with a_pair(postgres_url) as pair:
        things = [await pair.thing(name) for name in "ab"]
        for number in range(ROUNDS):
            known = await pair.certificate(number)
            kinds = [PrincipalType.EXCLUSIVE, list(PrincipalType)[number % 2]]
            acts = zip((pair.here, pair.there), things, kinds, strict=True)
            assert await both(*(aws.attachments.attach(thing, known, kind, **ME) for aws, thing, kind in acts)) == 1


async def test_a_certificate_gets_no_more_policies_than_it_may_have(postgres_url: str) -> None:
    async with a_pair(postgres_url) as pair:
        names = [f"p{number}" for number in range(MAX_ATTACHED + 1)]
        await pair.policies(*names)
        for number in range(ROUNDS):
            known = await pair.certificate(number)
            for name in names[2:]:
                await pair.here.policies.attach(name, known, **ME)
            acts = zip((pair.here, pair.there), names[:2], strict=True)
            assert await both(*(aws.policies.attach(name, known, **ME) for aws, name in acts)) == 1
