"""The account's statements on both databases."""

import asyncio
from typing import Any

import pytest

from birthmark.auth.sigv4 import AccessKeyUnknownError
from birthmark.awsiot.model import CertificateMode, CertificateStatus, PrincipalType, ThingName
from birthmark.awsiot.rules.policy import PolicyDeniedError, PolicyMalformedError
from birthmark.awsiot.rules.policy_variables import ConnectionContext
from birthmark.awsiot.service.access_keys import AccessKeyMissingError
from birthmark.awsiot.service.certificates import CertificateInUseError
from birthmark.awsiot.service.device_authorization import CertificateInactiveError, CertificateUnknownError
from birthmark.awsiot.service.policies import PolicyExistsError, PolicyInUseError
from birthmark.awsiot.service.thing_principals import ExclusiveThingError
from birthmark.awsiot.service.things import ThingVersionError
from birthmark.errors import UnavailableError
from birthmark.store import reloading_cache
from support.aws.account import ME, POLICY, an_aws_account
from support.pki.pki_builders import a_ca, a_device
from support.store.between import leave_the_next_commit_open, lose_the_next_answer

pytestmark = pytest.mark.integration


async def test_keys_things_and_types(database_url: str) -> None:
    async with an_aws_account(database_url) as (aws, _clock):
        key = await aws.keys.add("first", **ME)
        await aws.keys.load()
        assert aws.keys.all() == (key,)
        await aws.keys.remove(key.id, **ME)
        await aws.keys.load()
        assert aws.keys.all() == ()
        await aws.things.types.create(ThingName("pump"), {}, **ME)
        for name in ("a", "B", "c"):
            await aws.things.create(ThingName(name), {"n": name}, "pump", None, **ME)
        both = await asyncio.gather(*(aws.things.create(ThingName("d"), {}, None, None, **ME) for _ in range(2)))
        assert both[0].thing_id == both[1].thing_id
        await aws.things.update("a", {"n": "2"}, None, merge=False, remove_type=True, expected=1, **ME)
        with pytest.raises(ThingVersionError):
            await aws.things.update("a", None, None, merge=False, remove_type=False, expected=1, **ME)
        first = await aws.things.page("", 2)
        rest = await aws.things.page(first.last or "", 2)
        assert sorted(thing.name for thing in (*first.items, *rest.items)) == ["B", "a", "c", "d"]
        assert rest.last is None
        typed = await aws.things.page("", 10, type_name="pump", attribute=("n", "c"))
        assert [thing.name for thing in typed.items] == ["c"]
        found = [
            [thing.name for thing in (await aws.things.page("", 10, attribute=wanted, prefix=prefix)).items]
            for wanted, prefix in (
                (("n", None), False),
                (("n", "B"), True),
                (("n", ""), True),
                (("n", "%"), True),
                (("N", None), False),
                (('n" OR 1', None), False),
            )
        ]
        assert [sorted(names) for names in found] == [["B", "a", "c"], ["B"], ["B", "a", "c"], [], [], []]
        await aws.things.delete("d", None, **ME)
        assert await aws.things.find("d") is None


async def test_certificates_policies_and_attachments(database_url: str) -> None:
    async with an_aws_account(database_url) as (aws, _clock):
        leaf = a_device().certificate
        visitor = ConnectionContext(leaf, "thing-1", "192.0.2.1", "localhost")
        with pytest.raises(CertificateUnknownError):
            await aws.devices.admit(visitor)
        known = await aws.certificates.register(leaf.pem(), CertificateStatus.INACTIVE, **ME)
        with pytest.raises(CertificateInactiveError):
            await aws.devices.admit(visitor)
        await aws.certificates.set_status(known.id, CertificateStatus.ACTIVE, **ME)
        await aws.policies.create("p", POLICY, **ME)
        with pytest.raises(PolicyExistsError):
            await aws.policies.create("p", POLICY, **ME)
        await aws.policies.attach("p", known.id, **ME)
        await aws.policies.attach("p", known.id, **ME)
        await aws.things.create(ThingName("thing-1"), {}, None, None, **ME)
        await aws.attachments.attach("thing-1", known.id, PrincipalType.NON_EXCLUSIVE, **ME)
        grant = await aws.devices.admit(visitor)
        assert (grant.thing, grant.policies) == ("thing-1", frozenset({"p"}))
        aws.devices.check(grant, "iot:Connect", "client", "thing-1")
        assert (await aws.policies.targets("p", "", 5)).items == [known.id]
        with pytest.raises(PolicyInUseError):
            await aws.policies.delete("p", **ME)
        await aws.policies.add_version("p", POLICY, as_default=True, **ME)
        await aws.policies.delete_version("p", 1, **ME)
        await aws.policies.create("q", POLICY, **ME)
        down = await aws.policies.page(None, 1, ascending=False)
        assert [policy.name for policy in down.items] == ["q"]
        assert [policy.name for policy in (await aws.policies.page(down.last, 1, ascending=False)).items] == ["p"]
        await aws.certificates.set_status(known.id, CertificateStatus.REVOKED, **ME)
        with pytest.raises(CertificateInUseError):
            await aws.certificates.delete(known.id, force=True, **ME)
        await aws.attachments.detach("thing-1", known.id, **ME)
        await aws.certificates.delete(known.id, force=True, **ME)
        await aws.policies.delete("p", **ME)
        assert await aws.certificates.find(known.id) is None


@pytest.mark.parametrize(
    ("name", "is_spelled_out"),
    [("$share/group/a/b", True), ("$aws/things/t/shadow/update", True), ("a/#", True), ("a*", False), ("${b}", False)],
)
async def test_the_fix_allows_a_name_that_a_policy_reads_as_itself(
    database_url: str, name: str, *, is_spelled_out: bool
) -> None:
    async with an_aws_account(database_url) as (aws, _clock):
        leaf = a_device().certificate
        known = await aws.certificates.register(leaf.pem(), CertificateStatus.ACTIVE, **ME)
        grant = await aws.devices.admit(ConnectionContext(leaf, "thing-1", "192.0.2.1", "localhost"))
        with pytest.raises(PolicyDeniedError) as denied:
            aws.devices.check(grant, "iot:Subscribe", "topicfilter", name)
        assert ("aws iot create-policy" in denied.value.command) is is_spelled_out
        assert known.id in denied.value.command


async def test_attaching_again_is_harmless_however_many_things_a_certificate_has(database_url: str) -> None:
    async with an_aws_account(database_url) as (aws, _clock):
        known = await aws.certificates.register(a_device().certificate.pem(), CertificateStatus.ACTIVE, **ME)
        for name in ("a", "b", "c", "d"):
            await aws.things.create(ThingName(name), {}, None, None, **ME)
            for _ in range(2):
                await aws.attachments.attach(name, known.id, PrincipalType.NON_EXCLUSIVE, **ME)
        with pytest.raises(ExclusiveThingError, match="attached as NON_EXCLUSIVE"):
            await aws.attachments.attach("d", known.id, PrincipalType.EXCLUSIVE, **ME)


async def test_who_asks_for_the_registration_code_at_once_is_told_the_one_that_counts(database_url: str) -> None:
    async with an_aws_account(database_url) as (aws, _clock):
        codes = await asyncio.gather(*(aws.authorities.registration_code() for _ in range(6)))
        assert set(codes) == {await aws.authorities.registration_code()}


async def test_cas_and_their_certificates(database_url: str) -> None:
    async with an_aws_account(database_url) as (aws, _clock):
        ca = a_ca("Maker")
        code = await aws.authorities.registration_code()
        assert await aws.authorities.registration_code() == code
        await aws.authorities.delete_registration_code(**ME)
        flags: dict[str, Any] = {"is_active": True, "auto_registration": False, "registration": None}
        known = await aws.authorities.register(ca.certificate.pem(), None, CertificateMode.SNI_ONLY, **flags, **ME)
        made = [
            await aws.certificates.register_by_ca(
                a_device(ca, f"d{n}").certificate.pem(), None, CertificateStatus.ACTIVE, **ME
            )
            for n in range(3)
        ]
        for ascending in (True, False):
            first = await aws.certificates.page("", 2, ascending=ascending, ca_id=known.id)
            rest = await aws.certificates.page(first.last or "", 2, ascending=ascending, ca_id=known.id)
            found = [each.id for each in (*first.items, *rest.items)]
            assert sorted(found) == sorted(each.id for each in made)
            assert found == sorted(found, reverse=not ascending)  # made in the same moment: by id
        change: dict[str, Any] = {
            "auto_registration": True,
            "registration": '{"templateName":"t"}',
            "remove_registration": False,
        }
        await aws.authorities.update(known.id, is_active=False, **change, **ME)
        assert (await aws.authorities.get(known.id)).registration == change["registration"]
        for ascending in (True, False):
            assert [each.id for each in (await aws.authorities.page(None, 5, ascending=ascending)).items] == [known.id]
        await aws.authorities.delete(known.id, **ME)


async def test_an_access_key_that_was_removed_signs_nothing_more_although_the_answer_was_lost(
    postgres_url: str,
) -> None:
    async with an_aws_account(postgres_url) as (aws, _clock):
        key = await aws.keys.add("first", **ME)
        lose_the_next_answer(aws.keys.database)
        with pytest.raises(UnavailableError):
            await aws.keys.remove(key.id, **ME)
        with pytest.raises((AccessKeyMissingError, UnavailableError)):
            await aws.keys.remove(key.id, **ME)
        assert aws.keys.all() == ()


async def test_an_access_key_that_is_removed_after_the_answer_was_lost_signs_nothing_from_then_on(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading_cache, "_LOOK_EVERY_S", 0.01)
    async with an_aws_account(database_url) as (aws, _clock):
        key = await aws.keys.add("first", **ME)
        keep = leave_the_next_commit_open(aws.keys.database)
        with pytest.raises(UnavailableError):
            await aws.keys.remove(key.id, **ME)
        await keep()
        async with asyncio.timeout(5):
            while aws.keys.all():
                await asyncio.sleep(0.01)
        with pytest.raises(AccessKeyUnknownError):
            aws.keys.check_known(key.id)


async def test_the_policy_of_a_key_is_corrected_where_it_is_and_not_made_a_device_s(database_url: str) -> None:
    async with an_aws_account(database_url) as (aws, _clock):
        with pytest.raises(PolicyMalformedError) as caught:
            await aws.keys.add("first", policy='{"Statements": []}', **ME)
        assert "create-policy" not in caught.value.explain_fix()
        assert '"Action":"iot:ListThings"' in caught.value.explain_fix()
