"""A renewed certificate gets what the old one has, and the old one goes when it has connected: on both databases."""

import asyncio
from collections.abc import Sequence

import pytest

from birthmark.awsiot.model import CertificateStatus, PrincipalType, ThingName
from birthmark.awsiot.rules.policy_variables import ConnectionContext
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.certificate_succession import NoSuccessorError
from birthmark.awsiot.service.device_authorization import CertificateUnknownError
from birthmark.pki.certificates import Certificate
from support.aws.account import ME, POLICY, an_aws_account
from support.pki.pki_builders import Holder, a_ca, a_device

pytestmark = pytest.mark.integration
CA = a_ca("Issuing")


async def a_thing(aws: AwsIot, name: str, held: Holder, *more: str) -> str:
    """Put a device on record with its certificate and a policy; return the certificate's id."""
    known = await aws.certificates.register(held.certificate.pem(), CertificateStatus.ACTIVE, **ME)
    await aws.policies.create(f"policy-{name}", POLICY, **ME)
    await aws.policies.attach(f"policy-{name}", known.id, **ME)
    for one in (name, *more):
        await aws.things.create(ThingName(one), {}, None, None, **ME)
        await aws.attachments.attach(one, known.id, PrincipalType.NON_EXCLUSIVE, **ME)
    return known.id


def following(aws: AwsIot, *chain: Certificate) -> None:
    """Say which certificates followed which, the latest first."""

    async def predecessors(leaf: Certificate) -> Sequence[str]:
        ids = [one.thumbprint.hex() for one in chain]
        return ids[ids.index(leaf.thumbprint.hex()) + 1 :] if leaf.thumbprint.hex() in ids else []

    aws.renewals.predecessors = predecessors


async def status_of(aws: AwsIot, certificate_id: str) -> str:
    return (await aws.certificates.get(certificate_id)).status.value


async def test_what_a_ca_of_this_installation_renewed_follows_at_its_first_connection(database_url: str) -> None:
    async with an_aws_account(database_url) as (aws, _):
        old, new = a_device(CA, "pump-1"), a_device(CA, "pump-1")
        old_id = await a_thing(aws, "pump-1", old)
        following(aws, new.certificate, old.certificate)
        grants = await asyncio.gather(
            *(aws.devices.admit(ConnectionContext(new.certificate, "pump-1", "", "")) for _ in range(3))
        )
        assert {(one.thing, tuple(one.policies), one.replaces) for one in grants} == {
            ("pump-1", ("policy-pump-1",), True)
        }
        assert await status_of(aws, old_id) == "ACTIVE"
        await asyncio.gather(*(aws.renewals.retire_predecessor(new.certificate.thumbprint.hex()) for _ in range(3)))
        assert await status_of(aws, old_id) == "INACTIVE"
        again = await aws.devices.admit(ConnectionContext(new.certificate, "pump-1", "", ""))
        assert not again.replaces
        page = await aws.attachments.principals("pump-1", "", 5)
        assert len(page.items) == 2


async def test_a_connection_that_comes_between_the_look_and_the_record_is_the_same_device(database_url: str) -> None:
    async with an_aws_account(database_url) as (aws, _):
        old, new = a_device(CA, "pump-1"), a_device(CA, "pump-1")
        await a_thing(aws, "pump-1", old)
        following(aws, new.certificate, old.certificate)
        looks = 0

        async def looked(leaf: Certificate, chain: Sequence[Certificate]) -> None:
            nonlocal looks
            looks += 1
            if looks == 1:  # its other connection is as quick as can be
                await aws.devices.admit(ConnectionContext(leaf, "pump-1", "", ""))

        aws.certificates.revocations = looked
        grant = await aws.devices.admit(ConnectionContext(new.certificate, "pump-1", "", ""))
        assert (grant.thing, grant.replaces) == ("pump-1", True)


async def test_a_device_that_renewed_twice_meanwhile_follows_the_one_that_is_registered(database_url: str) -> None:
    async with an_aws_account(database_url) as (aws, _):
        old, between, new = (a_device(CA, "pump-1") for _ in range(3))
        await a_thing(aws, "pump-1", old)
        following(aws, new.certificate, between.certificate, old.certificate)
        grant = await aws.devices.admit(ConnectionContext(new.certificate, "pump-1", "", ""))
        assert grant.thing == "pump-1"


@pytest.mark.parametrize("why", ["another name", "inactive", "a claim", "nothing known"])
async def test_nothing_follows_what_gives_nothing_on(database_url: str, why: str) -> None:
    async with an_aws_account(database_url) as (aws, _):
        old = a_device(CA, "registrar" if why == "another name" else "pump-1")
        new = a_device(CA, "pump-1")
        old_id = await a_thing(aws, "pump-1", old)
        if why == "inactive":
            await aws.certificates.set_status(old_id, CertificateStatus.INACTIVE, **ME)
        if why == "a claim":
            await aws.claims.set_claim((await aws.certificates.get(old_id)).id, is_claim=True, **ME)
        if why != "nothing known":
            following(aws, new.certificate, old.certificate)
        with pytest.raises(CertificateUnknownError):
            await aws.devices.admit(ConnectionContext(new.certificate, "pump-1", "", ""))


async def test_a_certificate_that_several_things_share_stays_for_the_others(database_url: str) -> None:
    async with an_aws_account(database_url) as (aws, _):
        old, new = a_device(CA, "shared"), a_device(CA, "shared")
        old_id = await a_thing(aws, "pump-1", old, "pump-2")
        following(aws, new.certificate, old.certificate)
        await aws.devices.admit(ConnectionContext(new.certificate, "pump-1", "", ""))
        await aws.renewals.retire_predecessor(new.certificate.thumbprint.hex())
        assert await status_of(aws, old_id) == "ACTIVE"


async def test_an_operator_says_which_follows_which(database_url: str) -> None:
    async with an_aws_account(database_url) as (aws, _):
        old, new = a_device(a_ca("One"), "pump-1"), a_device(a_ca("Another"), "pump-1")
        old_id = await a_thing(aws, "pump-1", old)
        made = await aws.renewals.carry((await aws.certificates.get(old_id)).id, new.certificate, **ME)
        again = await aws.renewals.carry((await aws.certificates.get(old_id)).id, new.certificate, **ME)
        assert made.id == again.id
        with pytest.raises(NoSuccessorError):
            await aws.renewals.carry(made.id, old.certificate, **ME)
        await aws.devices.admit(ConnectionContext(new.certificate, "pump-1", "", ""))
        await aws.renewals.retire_predecessor(made.id)
        assert await status_of(aws, old_id) == "INACTIVE"
