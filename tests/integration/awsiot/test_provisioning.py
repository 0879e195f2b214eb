"""What becomes of devices that come for the first time, or by a claim: on both databases, many at once, too late."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from birthmark.actor import Actor
from birthmark.awsiot.model import (
    CertificateMode,
    CertificateStatus,
    PolicyName,
    PrincipalType,
    RegisteredCa,
    TemplateType,
    ThingName,
    target_of_group,
)
from birthmark.awsiot.ports import FunctionCaller
from birthmark.awsiot.rules.policy import PolicyDeniedError
from birthmark.awsiot.rules.policy_variables import ConnectionContext
from birthmark.awsiot.rules.provisioning_plan_model import (
    ProvisioningPlan,
    RegistrationFailedError,
    TemplateInvalidError,
)
from birthmark.awsiot.rules.provisioning_templates import parse_template
from birthmark.awsiot.service import AwsIot, jit_registration
from birthmark.awsiot.service.certificates import TooManyOwnedError, UnknownCertificateError
from birthmark.awsiot.service.device_authorization import CertificateUnknownError, ClaimOverError, FirstContactOffError
from birthmark.awsiot.service.fleet_provisioning import HookRefusedError, OwnershipTokenError, ProvisioningCaller
from birthmark.awsiot.service.jit_registration import CaFullError, FirstConnectionRegisteredError, OtherFormError
from birthmark.awsiot.service.provisioning_templates import check_body
from birthmark.awsiot.service.thing_registration import ThingTakenError
from birthmark.errors import BirthmarkError, ForbiddenError
from birthmark.iam.lasting_access_grants import restrict_wide_policies
from birthmark.pki.certificates import Certificate
from birthmark.pki.signature_malleability import twins_of
from birthmark.rate_limits import RateLimits
from support.aws.account import ACCOUNT, ME, an_aws_account
from support.fakes import FakeClock
from support.pki.other_form import other_form
from support.pki.pki_builders import Holder, a_ca, a_csr, a_device

pytestmark = pytest.mark.integration
THING = {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "Serial"}}}
CERTIFICATE = {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}}}
POLICY = {
    "Type": "AWS::IoT::Policy",
    "Properties": {
        "PolicyDocument": {
            "Version": "2012-10-17",
            "Statement": {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"},
        }
    },
}
CLAIM = json.dumps(
    {
        "Parameters": {"Serial": {"Type": "String"}, "AWS::IoT::Certificate::Id": {"Type": "String"}},
        "Resources": {"thing": THING, "certificate": CERTIFICATE, "policy": POLICY},
    }
)
JITP = CLAIM.replace('"Serial"', '"AWS::IoT::Certificate::CommonName"')
CSR = base64.b64encode(a_csr("device")).decode()


class Hook:
    """A function that answers as it is told; `during` happens meanwhile."""

    def __init__(self) -> None:
        self.answer: Any = {"allowProvisioning": True}
        self.events: list[Mapping[str, Any]] = []
        self.clock: FakeClock | None = None

    def is_mapped(self, arn: str) -> bool:
        del arn
        return True

    async def call(self, arn: str, event: Mapping[str, Any], caller: FunctionCaller, whose: str = "") -> Any:
        del arn, caller, whose
        self.events.append(event)
        if self.clock is not None:
            self.clock.move(timedelta(hours=2))
        return self.answer


@asynccontextmanager
async def a_fleet(
    database_url: str, hook: Hook | None = None
) -> AsyncIterator[tuple[AwsIot, FakeClock, ProvisioningCaller]]:
    """Yield an account with a template `fleet`, and somebody with a claim certificate."""
    async with an_aws_account(database_url) as (aws, clock):
        given: dict[str, Any] = {"description": "", "is_enabled": True, "role_arn": "r", "hook": None}
        if hook is not None:
            given["hook"] = json.dumps({"targetArn": "arn:hook"})
            aws.claims.functions = hook
        await aws.templates.create("fleet", CLAIM, TemplateType.FLEET_PROVISIONING, **given, **ME)
        held = a_device(a_ca("claims"), "claim")
        known = await aws.certificates.register(held.certificate.pem(), CertificateStatus.ACTIVE, **ME)
        yield aws, clock, ProvisioningCaller(known.id, "claim-1")


def overriding(parameters: dict[str, Any]) -> dict[str, Any]:
    return {"allowProvisioning": True, "parameterOverrides": parameters}


async def given(aws: AwsIot, asker: ProvisioningCaller, *, is_new: bool = False) -> tuple[str, str]:
    """Ask for a certificate, with a key of its own where it `is_new`; return its id and its token."""
    csr = base64.b64encode(a_csr("device")).decode() if is_new else CSR
    made = await aws.claims.create_from_csr(asker, csr)
    return made.certificate.id, made.token


async def test_a_claim_is_given_certificates_at_a_pace(database_url: str) -> None:
    async with a_fleet(database_url) as (aws, clock, asker):
        aws.claims.pace = RateLimits(2, 1)
        for _ in range(2):
            await given(aws, asker, is_new=True)
        with pytest.raises(TooManyOwnedError):
            await given(aws, asker, is_new=True)
        clock.move(timedelta(seconds=1))
        await given(aws, asker, is_new=True)


async def test_ten_devices_with_one_serial_at_once_are_one_device(database_url: str) -> None:
    async with a_fleet(database_url) as (aws, _, asker):
        tokens = [await given(aws, asker, is_new=True) for _ in range(10)]
        ended = await asyncio.gather(
            *(aws.claims.provision(asker, "fleet", token, {"Serial": "one"}) for _, token in tokens),
            return_exceptions=True,
        )
        taken = [one for one in ended if isinstance(one, BirthmarkError)]
        assert len(taken) == 9
        assert all(isinstance(one, ThingTakenError) for one in taken), taken
        page = await aws.attachments.principals("one", "", 25)
        assert len(page.items) == 1
        active = [(await aws.certificates.get(one)).status is CertificateStatus.ACTIVE for one, _ in tokens]
        assert sum(active) == 1


async def test_a_device_that_lost_its_answer_is_itself_again_by_the_same_key(database_url: str) -> None:
    async with a_fleet(database_url) as (aws, _, asker):
        ids = []
        for _ in range(3):
            certificate_id, token = await given(aws, asker)
            made = await aws.claims.provision(asker, "fleet", token, {"Serial": "one"})
            assert made.thing == "one"
            ids.append(certificate_id)
        assert await statuses_of(aws, ids) == ["ACTIVE", "INACTIVE", "ACTIVE"]  # the first may be in use
        await aws.renewals.retire_predecessor(ids[-1])
        page = await aws.attachments.principals("one", "", 5)
        assert [one for one, _ in page.items] == [ids[-1]]
        assert await statuses_of(aws, ids) == ["INACTIVE", "INACTIVE", "ACTIVE"]
        again, token = await given(aws, asker)
        await aws.claims.provision(asker, "fleet", token, {"Serial": "one"})
        assert await statuses_of(aws, [ids[-1], again]) == ["ACTIVE", "ACTIVE"]


async def test_by_a_devices_request_nobody_takes_its_certificate_off_the_air(database_url: str) -> None:
    async with a_fleet(database_url) as (aws, _, asker):
        own, token = await given(aws, asker)
        await aws.claims.provision(asker, "fleet", token, {"Serial": "one"})
        for _ in range(3):
            _, token = await given(aws, ProvisioningCaller(asker.principal, "somebody"))
            await aws.claims.provision(
                ProvisioningCaller(asker.principal, "somebody"), "fleet", token, {"Serial": "one"}
            )
        leaf = (await aws.certificates.get(own)).certificate
        assert (await aws.devices.admit(ConnectionContext(leaf, "one", "", ""))).thing == "one"
        page = await aws.attachments.principals("one", "", 9)
        assert len(page.items) == 2


async def test_of_many_who_ask_by_one_key_at_once_two_certificates_are_left(database_url: str) -> None:
    async with a_fleet(database_url) as (aws, _, asker):
        own, token = await given(aws, asker)
        await aws.claims.provision(asker, "fleet", token, {"Serial": "one"})
        tokens = [await given(aws, asker) for _ in range(3)]
        asked = (aws.claims.provision(asker, "fleet", one, {"Serial": "one"}) for _, one in tokens)
        await asyncio.gather(*asked, return_exceptions=True)
        kept = [one for one, _ in (await aws.attachments.principals("one", "", 9)).items]
        assert own in kept
        assert len(kept) == 2


async def statuses_of(aws: AwsIot, ids: list[str]) -> list[str]:
    return [(await aws.certificates.get(one)).status.value for one in ids]


async def test_a_key_whose_certificate_was_revoked_gets_no_other_under_its_name(database_url: str) -> None:
    async with a_fleet(database_url) as (aws, _, asker):
        certificate_id, token = await given(aws, asker)
        await aws.claims.provision(asker, "fleet", token, {"Serial": "one"})
        await aws.certificates.set_status(certificate_id, CertificateStatus.REVOKED, **ME)
        _, token = await given(aws, asker)
        with pytest.raises(ThingTakenError):
            await aws.claims.provision(asker, "fleet", token, {"Serial": "one"})


async def test_many_devices_at_once_share_the_policy_of_their_template(database_url: str) -> None:
    async with a_fleet(database_url) as (aws, _, asker):
        tokens = [await given(aws, asker) for _ in range(10)]
        await asyncio.gather(
            *(
                aws.claims.provision(asker, "fleet", token, {"Serial": f"pump-{number}"})
                for number, (_, token) in enumerate(tokens)
            )
        )
        (policy,) = (await aws.policies.page("", 25, ascending=True)).items
        assert len((await aws.policies.targets(policy.name, "", 25)).items) == 10


async def test_a_certificate_that_is_not_provisioned_within_an_hour_goes(database_url: str) -> None:
    async with a_fleet(database_url) as (aws, clock, asker):
        late, token = await given(aws, asker)
        used, other = await given(aws, asker)
        await aws.claims.provision(asker, "fleet", other, {"Serial": "in-time"})
        clock.move(timedelta(minutes=61))
        with pytest.raises(OwnershipTokenError):
            await aws.claims.provision(asker, "fleet", token, {"Serial": "late"})
        assert await aws.claims.sweep() == 1
        with pytest.raises(UnknownCertificateError):
            await aws.certificates.get(late)
        assert (await aws.certificates.get(used)).status is CertificateStatus.ACTIVE
        assert (await aws.policies.attached(used, "", 5)).items


async def test_a_certificate_that_an_operator_activates_does_not_go(database_url: str) -> None:
    async with a_fleet(database_url) as (aws, clock, asker):
        own, _ = await given(aws, asker)
        await aws.certificates.set_status(own, CertificateStatus.ACTIVE, **ME)
        clock.move(timedelta(minutes=61))
        assert await aws.claims.sweep() == 0
        assert (await aws.certificates.get(own)).status is CertificateStatus.ACTIVE


async def test_a_claim_for_a_trusted_user_that_is_set_active_again_counts_no_longer(database_url: str) -> None:
    async with a_fleet(database_url) as (aws, clock, _):
        made, _, _ = await aws.claims.claim_for("fleet", **ME)
        for status in (CertificateStatus.INACTIVE, CertificateStatus.ACTIVE):
            await aws.certificates.set_status(made.id, status, **ME)
        clock.move(timedelta(minutes=6))
        assert await aws.claims.sweep() == 1


@pytest.mark.parametrize(
    "asked", [ProvisioningCaller("f" * 64, "claim-1"), ProvisioningCaller("", "other")], ids=["principal", "client id"]
)
async def test_a_token_counts_for_who_was_given_it(database_url: str, asked: ProvisioningCaller) -> None:
    async with a_fleet(database_url) as (aws, _, asker):
        _, token = await given(aws, asker)
        thief = ProvisioningCaller(asked.principal or asker.principal, asked.client_id)
        with pytest.raises(OwnershipTokenError, match="another client"):
            await aws.claims.provision(thief, "fleet", token, {"Serial": "mine"})
        assert (await aws.claims.provision(asker, "fleet", token, {"Serial": "mine"})).thing == "mine"


async def test_a_token_that_is_used_twice_at_once_counts_once(database_url: str) -> None:
    async with a_fleet(database_url) as (aws, _, asker):
        _, token = await given(aws, asker)
        ended = await asyncio.gather(
            *(aws.claims.provision(asker, "fleet", token, {"Serial": f"s-{n}"}) for n in range(2)),
            return_exceptions=True,
        )
        assert sorted(isinstance(one, BaseException) for one in ended) == [False, True]
        assert len((await aws.things.page("", 5)).items) == 1


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"allowProvisioning": False}, "allowProvisioning is false"),
        ({}, "not understood"),
        ("yes", "not understood"),
        ({"allowProvisioning": True, "parameterOverrides": {"Others": "x"}}, "does not declare"),
        (
            {"allowProvisioning": True, "parameterOverrides": {"AWS::IoT::Certificate::Id": "0" * 64}},
            "does not declare",
        ),
        ({"allowProvisioning": True, "parameterOverrides": {"Serial": 7}}, "not understood"),
    ],
)
async def test_what_a_hook_does_not_allow_is_not_made(database_url: str, answer: Any, why: str) -> None:
    hook = Hook()
    hook.answer = answer
    async with a_fleet(database_url, hook) as (aws, _, asker):
        _, token = await given(aws, asker)
        with pytest.raises(HookRefusedError, match=why):
            await aws.claims.provision(asker, "fleet", token, {"Serial": "mine"})
        assert (await aws.things.page("", 5)).items == []


async def test_a_hook_is_told_who_asks_and_may_change_the_parameters(database_url: str) -> None:
    hook = Hook()
    hook.answer = {"allowProvisioning": True, "parameterOverrides": {"Serial": "theirs"}}
    async with a_fleet(database_url, hook) as (aws, _, asker):
        certificate_id, token = await given(aws, asker)
        made = await aws.claims.provision(asker, "fleet", token, {"Serial": "mine"})
        assert made.thing == "theirs"
        (event,) = hook.events
        assert event["claimCertificateId"] == asker.principal
        assert (event["certificateId"], event["clientId"]) == (certificate_id, asker.client_id)
        assert event["templateArn"] == ACCOUNT.arn("provisioningtemplate", "fleet")
        assert event["parameters"] == {"Serial": "mine"}


async def test_a_hook_that_answers_after_the_token_has_ended_made_nothing(database_url: str) -> None:
    hook = Hook()
    async with a_fleet(database_url, hook) as (aws, clock, asker):
        _, token = await given(aws, asker)
        hook.clock = clock
        with pytest.raises(OwnershipTokenError):
            await aws.claims.provision(asker, "fleet", token, {"Serial": "mine"})
        assert (await aws.things.page("", 5)).items == []


NARROW, WIDE = "${iot:Connection.Thing.ThingName}", "*"


def a_policy_on(topic: str) -> dict[str, Any]:
    allow = {"Effect": "Allow", "Action": "iot:Publish", "Resource": ACCOUNT.arn("topic", topic)}
    return {"Version": "2012-10-17", "Statement": [allow]}


async def give(aws: AwsIot, topic: str) -> None:
    """Let devices of the fleet get a policy on a topic."""
    body = json.loads((await aws.templates.version("fleet"))[1].body)
    body["Resources"]["policy"] = {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": a_policy_on(topic)}}
    await aws.templates.add_version("fleet", json.dumps(body), as_default=True, **ME)


class MayGiveNoneAwayError(ForbiddenError):
    """Only who operates may let a device do more than is its own."""


def an_enroller() -> Actor:
    def check() -> None:
        raise MayGiveNoneAwayError

    return Actor("user:ann", takes=restrict_wide_policies(None, check))


@pytest.mark.parametrize("topic", [NARROW, WIDE])
async def test_an_enroller_makes_a_claim_for_a_template_that_gives_a_device_its_own(
    database_url: str, topic: str
) -> None:
    is_own = contextlib.nullcontext() if topic == NARROW else pytest.raises(MayGiveNoneAwayError)
    async with a_fleet(database_url) as (aws, _, _):
        await give(aws, topic)
        with is_own:
            await aws.claims.claim_for("fleet", actor=an_enroller())


@pytest.mark.parametrize("topic", [NARROW, WIDE])
async def test_an_enroller_makes_no_claim_where_a_thing_may_be_in_a_group_that_allows_more(
    database_url: str, topic: str
) -> None:
    is_own = contextlib.nullcontext() if topic == NARROW else pytest.raises(MayGiveNoneAwayError)
    async with a_fleet(database_url) as (aws, _, _):
        await give(aws, NARROW)
        await aws.thing_groups.create(ThingName("any-group"), None, None, None, **ME)
        await aws.policies.create(PolicyName("p"), json.dumps(a_policy_on(topic)), **ME)
        await aws.policies.attach("p", target_of_group("any-group"), **ME)
        with is_own:
            await aws.claims.claim_for("fleet", actor=an_enroller())


@pytest.mark.parametrize("topic", [NARROW, WIDE])
async def test_an_enroller_activates_nothing_that_reaches_far_by_a_template(database_url: str, topic: str) -> None:
    is_own = (
        contextlib.nullcontext()
        if topic == NARROW
        else pytest.raises(RegistrationFailedError, match="lacks permission")
    )
    async with a_fleet(database_url) as (aws, _, _):
        known = await aws.certificates.register(a_device(a_ca()).certificate.pem(), CertificateStatus.INACTIVE, **ME)
        await aws.policies.create(PolicyName("p"), json.dumps(a_policy_on(topic)), **ME)
        await aws.policies.attach("p", known.id, **ME)
        with is_own:
            await aws.provisioning.register(activating(known.id), actor=an_enroller())


def activating(certificate_id: str) -> ProvisioningPlan:
    """Return a plan that gives a certificate the status ACTIVE, whatever it has."""
    given = {"CertificateId": certificate_id, "Status": "ACTIVE"}
    whole = {"Type": "AWS::IoT::Certificate", "Properties": given, "OverrideSettings": {"Status": "REPLACE"}}
    return parse_template(json.dumps({"Resources": {"certificate": whole}})).plan({})


async def test_no_template_takes_back_that_a_certificate_was_revoked(database_url: str) -> None:
    async with a_fleet(database_url) as (aws, _, _):
        known = await aws.certificates.register(a_device(a_ca()).certificate.pem(), CertificateStatus.ACTIVE, **ME)
        await aws.certificates.set_status(known.id, CertificateStatus.REVOKED, **ME)
        with pytest.raises(RegistrationFailedError, match="it was revoked"):
            await aws.provisioning.register(activating(known.id), **ME)
        assert (await aws.certificates.get(known.id)).status is CertificateStatus.REVOKED


@pytest.mark.parametrize("topic", [NARROW, WIDE])
async def test_an_enroller_lets_no_certificate_in_that_reaches_further_than_a_device(
    database_url: str, topic: str
) -> None:
    is_own = contextlib.nullcontext() if topic == NARROW else pytest.raises(MayGiveNoneAwayError)
    async with a_fleet(database_url) as (aws, _, _):
        known = await aws.certificates.register(a_device(a_ca()).certificate.pem(), CertificateStatus.INACTIVE, **ME)
        await aws.policies.create(PolicyName("p"), json.dumps(a_policy_on(topic)), **ME)
        await aws.policies.attach("p", known.id, **ME)
        with is_own:
            await aws.certificates.set_status(known.id, CertificateStatus.ACTIVE, actor=an_enroller())
        await aws.claims.set_claim(known.id, is_claim=True, **ME)
        await aws.claims.set_claim(known.id, is_claim=True, actor=an_enroller())
        with is_own:
            await aws.claims.set_claim(known.id, is_claim=False, actor=an_enroller())


async def test_a_claim_for_a_trusted_user_counts_for_its_template_and_five_minutes(database_url: str) -> None:
    async with a_fleet(database_url) as (aws, clock, _):
        known, _, until = await aws.claims.claim_for("fleet", **ME)
        assert until - clock.now() == timedelta(minutes=5)
        grant = await aws.devices.admit(ConnectionContext(known.certificate, "new", "", ""))
        for topic in ("$aws/certificates/create/json", "$aws/provisioning-templates/fleet/provision/cbor"):
            aws.devices.check(grant, "iot:Publish", "topic", topic)
            aws.devices.check(grant, "iot:Subscribe", "topicfilter", f"{topic}/accepted")
        for topic in ("$aws/provisioning-templates/other/provision/json", "hello", "$aws/things/x/shadow/update"):
            with pytest.raises(PolicyDeniedError):
                aws.devices.check(grant, "iot:Publish", "topic", topic)
        clock.move(timedelta(minutes=6))
        with pytest.raises(ClaimOverError):
            await aws.devices.admit(ConnectionContext(known.certificate, "new", "", ""))
        assert await aws.claims.sweep() == 1
        with pytest.raises(CertificateUnknownError):
            await aws.devices.admit(ConnectionContext(known.certificate, "new", "", ""))


async def test_a_certificate_of_a_thing_that_asks_for_another_is_no_claim(database_url: str) -> None:
    async with a_fleet(database_url) as (aws, _, asker):
        held = a_device(a_ca("rotates"), "rotates")
        known = await aws.certificates.register(held.certificate.pem(), CertificateStatus.ACTIVE, **ME)
        await aws.things.create(ThingName("rotates"), {}, None, None, **ME)
        await aws.attachments.attach("rotates", known.id, PrincipalType.NON_EXCLUSIVE, **ME)
        await given(aws, ProvisioningCaller(known.id, "rotates"))
        assert (await aws.certificates.get(known.id)).claim is None
        await given(aws, asker)
        assert (await aws.certificates.get(asker.principal)).claim == ""


# ---- first contact


async def a_maker(aws: AwsIot, body: str | None = JITP) -> tuple[Holder, RegisteredCa]:
    maker = a_ca("Maker")
    ca = await aws.authorities.register(
        maker.certificate.pem(),
        None,
        CertificateMode.SNI_ONLY,
        is_active=True,
        auto_registration=True,
        registration=None if body is None else json.dumps({"templateBody": body}),
        **ME,
    )
    return maker, ca


async def comes(aws: AwsIot, held: Holder, name: str = "x") -> BaseException | None:
    try:
        await aws.devices.admit(ConnectionContext(held.certificate, name, "192.0.2.1", ""))
    except BirthmarkError as error:
        return error
    return None


async def test_who_asks_for_a_key_over_https_is_not_registered(database_url: str) -> None:
    async with an_aws_account(database_url) as (aws, _):
        maker, _ = await a_maker(aws)
        visitor = ConnectionContext(a_device(maker, "new").certificate, "new", "192.0.2.1", "")
        with pytest.raises(FirstContactOffError):
            await aws.roles.issue("reading", visitor)
        assert not (await aws.things.page("", 5)).items


async def test_one_device_that_comes_twice_at_once_is_registered_once(database_url: str) -> None:
    async with an_aws_account(database_url) as (aws, _):
        maker, _ = await a_maker(aws)
        held = a_device(maker, "pump-1")
        ended = await asyncio.gather(*(comes(aws, held) for _ in range(5)))
        assert all(isinstance(one, FirstConnectionRegisteredError) for one in ended if one is not None), ended
        assert len((await aws.certificates.page("", 5, ascending=True)).items) == 1
        assert await comes(aws, held) is None


async def test_ten_devices_of_one_name_at_once_are_one_device(database_url: str) -> None:
    async with an_aws_account(database_url) as (aws, _):
        maker, _ = await a_maker(aws)
        ended = await asyncio.gather(*(comes(aws, a_device(maker, "pump-1")) for _ in range(10)))
        kinds = sorted(type(one).__name__ for one in ended)
        assert kinds == ["FirstConnectionRegisteredError", *["ThingTakenError"] * 9]
        assert len((await aws.certificates.page("", 50, ascending=True)).items) == 1


async def test_a_certificate_with_its_signature_in_another_form_is_no_new_device(database_url: str) -> None:
    async with an_aws_account(database_url) as (aws, _):
        maker, _ = await a_maker(aws)
        held = a_device(maker, "pump-1")
        await comes(aws, held)
        await aws.certificates.set_status(held.certificate.thumbprint.hex(), CertificateStatus.REVOKED, **ME)
        twin = Holder(other_form(held.certificate, maker.private_key), held.private_key)
        assert twin.certificate.thumbprint in twins_of(held.certificate)
        assert isinstance(await comes(aws, twin), OtherFormError)


async def test_one_ca_brings_so_many_devices_and_no_more(database_url: str) -> None:
    async with an_aws_account(database_url) as (aws, _):
        maker, _ = await a_maker(aws)
        aws.first_contact.per_ca = 2
        ended = [await comes(aws, a_device(maker, f"pump-{n}")) for n in range(3)]
        assert [type(one) for one in ended] == [
            FirstConnectionRegisteredError,
            FirstConnectionRegisteredError,
            CaFullError,
        ]


async def test_a_device_is_registered_where_the_pace_of_its_ca_is_forgotten(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit_registration, "_MAX_KNOWN", 0)
    async with an_aws_account(database_url) as (aws, _):
        maker, _ca = await a_maker(aws)
        assert isinstance(await comes(aws, a_device(maker, "pump-1")), FirstConnectionRegisteredError)


async def test_one_ca_brings_so_many_devices_a_second(database_url: str) -> None:
    async with an_aws_account(database_url) as (aws, clock):
        aws.first_contact.per_second = 2
        maker, _ = await a_maker(aws)
        ended = [await comes(aws, a_device(maker, f"pump-{n}")) for n in range(3)]
        assert [type(one).__name__ for one in ended[1:]] == ["FirstConnectionRegisteredError", "CaTooFastError"]
        clock.move(timedelta(seconds=1))
        assert isinstance(await comes(aws, a_device(maker, "pump-9")), FirstConnectionRegisteredError)


@pytest.mark.parametrize("name", ['a"b', "a*", "${iot:ClientId}", "a/b", "x" * 64, "a b"])
async def test_a_name_that_a_policy_reads_as_more_than_itself_is_refused(database_url: str, name: str) -> None:
    statement = {"Effect": "Allow", "Action": "iot:Publish", "Resource": {"Fn::Sub": "arn:aws:iot:*:*:topic/${N}/*"}}
    document = {"Version": "2012-10-17", "Statement": [statement]}
    body = JITP.replace("${N}", "${AWS::IoT::Certificate::CommonName}")
    made = json.loads(body)
    made["Resources"]["policy"]["Properties"]["PolicyDocument"] = json.loads(
        json.dumps(document).replace("${N}", "${AWS::IoT::Certificate::CommonName}")
    )
    made["Resources"]["thing"]["Properties"]["ThingName"] = "fixed"
    async with an_aws_account(database_url) as (aws, _):
        maker, _ = await a_maker(aws, json.dumps(made))
        ended = await comes(aws, a_device(maker, name))
        if name in {"x" * 64, "a b"}:
            assert isinstance(ended, FirstConnectionRegisteredError), ended
        else:
            assert isinstance(ended, RegistrationFailedError), ended


def test_a_template_cannot_name_itself() -> None:
    body = {"Resources": {"thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "thing"}}}}}
    with pytest.raises(RegistrationFailedError, match="names itself"):
        parse_template(json.dumps(body)).plan({})


async def test_a_template_names_no_policy_that_is_not_there(database_url: str) -> None:
    body = json.loads(CLAIM)
    body["Resources"]["policy"]["Properties"] = {"PolicyName": "nowhere"}
    async with an_aws_account(database_url) as (aws, _):
        maker, _ = await a_maker(aws, json.dumps(body).replace('"Serial"', '"AWS::IoT::Certificate::CommonName"'))
        ended = await comes(aws, a_device(maker, "pump"))
        assert isinstance(ended, RegistrationFailedError)
        assert "nowhere" in str(ended)
        assert (await aws.things.page("", 5)).items == []


async def test_a_template_names_no_other_certificate_than_the_device_s_own(database_url: str) -> None:
    body = json.loads(CLAIM)
    async with a_fleet(database_url) as (aws, _, asker):
        others = await aws.certificates.register(
            a_device(a_ca("x"), "victim").certificate.pem(), CertificateStatus.ACTIVE, **ME
        )
        body["Resources"]["certificate"]["Properties"]["CertificateId"] = others.id
        await aws.templates.add_version("fleet", json.dumps(body), as_default=True, **ME)
        _, token = await given(aws, asker)
        with pytest.raises(RegistrationFailedError, match="not that of the device"):
            await aws.claims.provision(asker, "fleet", token, {"Serial": "mine"})


def test_a_template_of_a_claim_names_its_certificate_by_its_id() -> None:
    body = json.loads(CLAIM)
    body["Resources"]["certificate"]["Properties"] = {"CertificatePem": "x"}
    with pytest.raises(TemplateInvalidError, match="named by its CertificateId"):
        check_body(json.dumps(body), TemplateType.FLEET_PROVISIONING)


async def test_a_certificate_that_is_registered_between_the_look_and_the_record_is_kept_as_it_is(
    database_url: str,
) -> None:
    async with an_aws_account(database_url) as (aws, _):
        maker, _ = await a_maker(aws, None)
        held = a_device(maker, "pump")
        body = json.loads(CLAIM)
        body["Resources"]["certificate"]["Properties"] = {"CertificatePem": held.certificate.pem(), "Status": "ACTIVE"}
        body["Parameters"].pop("AWS::IoT::Certificate::Id")
        plan = parse_template(json.dumps(body)).plan({"Serial": "pump"})
        looks = 0

        async def looked(leaf: Certificate, chain: Sequence[Certificate]) -> None:
            nonlocal looks
            looks += 1
            if looks == 1:  # another request for the same certificate is as quick as can be
                await aws.provisioning.register(plan, actor="other")

        aws.certificates.revocations = looked
        made = await aws.provisioning.register(plan, actor="test")
        assert made.thing == "pump"
        assert len((await aws.attachments.principals("pump", "", 5)).items) == 1
