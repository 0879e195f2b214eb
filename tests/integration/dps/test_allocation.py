"""Custom allocation: the user's own program chooses a device's hub, its twin, and what the device is told."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from birthmark.dps import wire
from birthmark.dps.enrollment_document import CustomAllocation, EnrollmentDocument, ReprovisionPolicy
from birthmark.dps.error_mapping import http_error
from birthmark.dps.model import INITIAL, Claim, Registration
from birthmark.dps.rules.attestation import EnrollmentDisabledError
from birthmark.dps.rules.custom_allocation import AllocationFailedError, WebhookInvalidError
from birthmark.dps.rules.enrollment_validation import EnrollmentInvalidError
from birthmark.dps.rules.registration import MIGRATED, RESET
from birthmark.dps.service.allocation_webhooks import AllocationWebhooks
from birthmark.errors import BirthmarkError
from birthmark.iothub.model import Hub
from birthmark.iothub.service import Twins
from birthmark.outbound.callouts import MOST_WAITING, QuestionsWaitError
from birthmark.outbound.http_client import HttpSender
from birthmark.outbound.ssrf_guard import networks_of
from support.azure.dps_world import DpsWorld, a_dps, an_individual
from support.pki.pki_builders import Holder, a_device
from support.services.webhook_server import WebhookServer

pytestmark = pytest.mark.integration
HERE = networks_of(["127.0.0.1/32"])


@pytest.fixture
def webhook() -> Iterator[WebhookServer]:
    with WebhookServer() as server:
        yield server


async def two_hubs(world: DpsWorld) -> Hub:
    """Let programs on this machine be asked, and link a second hub."""
    world.enrollments.webhooks = AllocationWebhooks(HttpSender(HERE))
    world.enrollments.webhooks.pauses_s = (0.0, 0.0)
    made = await world.registry._hubs.create("second", "second.example", actor="test")
    world.instance = await world.instances.link("main", made.host, actor="test")
    return made


async def enroll(world: DpsWorld, device: Holder, url: str, **more: Any) -> EnrollmentDocument:
    wish = msgspec.structs.replace(
        an_individual("device-1", device),
        allocation_policy="custom",
        custom_allocation_definition=CustomAllocation(url, "2021-10-01"),
        **more,
    )
    return await world.enrollments.put(world.instance, wish, None, actor="test")


def facts(name: str) -> dict[str, str]:
    return {"host": "127.0.0.1", "enrollment": name, "registration_id": name}


async def register(world: DpsWorld, device: Holder, payload: Any = None) -> Registration:
    claim = Claim(world.instance.id_scope, "device-1", device.certificate, (), None)
    body = json.dumps({"registrationId": "device-1", "payload": payload}).encode()
    return await world.registrations.register(wire.add_request(claim, wire.parse_registration(body)))


async def test_the_program_is_told_of_device_and_enrollment_and_chooses(
    database_url: str, webhook: WebhookServer
) -> None:
    async with a_dps(database_url) as world:
        second, device = await two_hubs(world), a_device()
        webhook.answers["/choose"] = lambda _: (
            200,
            {
                "iotHubHostName": "SECOND.example",
                "initialTwin": {"tags": {"line": 3}, "properties": {"desired": {"speed": 7}}},
                "payload": {"welcome": ["pump", 1]},
            },
        )
        await enroll(world, device, webhook.url("/choose?code=s3cret"))
        made = await register(world, device, {"model": "P-100"})
        assert (made.hub, made.substatus) == (second.host, INITIAL)
        assert wire.status_json(made, None, "2021-06-01")["registrationState"]["payload"] == {"welcome": ["pump", 1]}
        twin = await Twins(world.database, world.clock, world.registry).get(second, "device-1")
        assert (twin.tags, twin.desired.values) == ({"line": 3}, {"speed": 7})
        path, asked = webhook.asked[0]
        assert path == "/choose?code=s3cret"
        assert asked["linkedHubs"] == ["hub.example", "second.example"]
        context = asked["deviceRuntimeContext"]
        assert (context["registrationId"], context["payload"]) == ("device-1", {"model": "P-100"})
        assert context["x509"]["certificateInfo"]["sha256Thumbprint"] == device.certificate.thumbprint.hex().upper()
        assert "currentIotHubHostName" not in context
        enrollment = asked["individualEnrollment"]
        assert enrollment["registrationId"] == "device-1"
        assert "s3cret" not in json.dumps(asked)
        kept = await world.registrations.get(world.instance, "device-1")
        assert wire.device_state_json(kept, None, "2021-06-01")["payload"] == {"welcome": ["pump", 1]}


async def test_a_device_that_comes_again_is_chosen_for_again_and_moves_with_its_twin(
    database_url: str, webhook: WebhookServer
) -> None:
    async with a_dps(database_url) as world:
        second, device = await two_hubs(world), a_device()
        webhook.answers["/choose"] = lambda _: (200, {"iotHubHostName": "hub.example"})
        await enroll(world, device, webhook.url("/choose"))
        await register(world, device)
        webhook.answers["/choose"] = lambda _: (200, {"iotHubHostName": "second.example"})
        moved = await register(world, device)
        assert (moved.hub, moved.substatus) == (second.host, MIGRATED)
        context = webhook.asked[1][1]["deviceRuntimeContext"]
        assert (context["currentIotHubHostName"], context["currentDeviceId"]) == ("hub.example", "device-1")


async def test_a_twin_of_the_answer_counts_more_than_the_one_that_would_move(
    database_url: str, webhook: WebhookServer
) -> None:
    async with a_dps(database_url) as world:
        second, device = await two_hubs(world), a_device()
        webhook.answers["/choose"] = lambda _: (200, {"iotHubHostName": "hub.example"})
        await enroll(world, device, webhook.url("/choose"))
        await register(world, device)
        answer = {"iotHubHostName": "second.example", "initialTwin": {"tags": {"anew": True}}}
        webhook.answers["/choose"] = lambda _: (200, answer)
        moved = await register(world, device)
        twin = await Twins(world.database, world.clock, world.registry).get(second, "device-1")
        assert (moved.substatus, twin.tags) == (RESET, {"anew": True})


async def test_who_keeps_its_hub_is_asked_about_once_and_keeps_what_it_was_told(
    database_url: str, webhook: WebhookServer
) -> None:
    async with a_dps(database_url) as world:
        _, device = await two_hubs(world), a_device()
        webhook.answers["/choose"] = lambda _: (200, {"iotHubHostName": "second.example", "payload": 5})
        policy = ReprovisionPolicy(update_hub_assignment=False, migrate_device_data=False)
        await enroll(world, device, webhook.url("/choose"), reprovision_policy=policy)
        first, again = await register(world, device), await register(world, device)
        assert (len(webhook.asked), first.hub, again.hub, again.payload) == (1, "second.example", "second.example", "5")


WRONG: dict[str, tuple[int, Any, int, str]] = {
    "no hub": (200, {}, 400208, "no IoT hub"),
    "an empty hub": (200, {"iotHubHostName": " "}, 400208, "no IoT hub"),
    "a hub that is not linked": (200, {"iotHubHostName": "other.example"}, 400207, "hub.example, second.example"),
    "no key for it": (401, {}, 400209, "authorization error"),
    "not there": (404, {}, 400207, "404"),
    "busy": (429, {}, 400207, "429"),
    "broken": (503, {}, 400207, "503"),
    "a redirect": (302, {}, 400207, "302"),
    "no JSON": (200, b"<html>", 400207, "AllocationResponse"),
    "a list": (200, [], 400207, "AllocationResponse"),
    "deep JSON": (200, b"[" * 60_000, 400207, "AllocationResponse"),
    "JSON that could still be read": (
        200,
        b'{"iotHubHostName": "hub.example", "payload": ' + b"[" * 900 + b"]" * 900 + b"}",
        400207,
        "64 levels",
    ),
    "a twin with what nobody serves": (
        200,
        {"iotHubHostName": "hub.example", "initialTwin": {"properties": {"reported": {"a": 1}}}},
        400207,
        "initialTwin.properties.reported",
    ),
    "too much": (200, b'"' + b"x" * 70_000 + b'"', 400207, "65536"),
    "a twin of another kind": (
        200,
        {"iotHubHostName": "hub.example", "initialTwin": {"tags": [1]}},
        400207,
        "initialTwin",
    ),
    "a number for a hub": (200, {"iotHubHostName": 5}, 400207, "AllocationResponse"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_an_answer_that_chooses_nothing_is_told_and_registers_nobody(
    database_url: str, webhook: WebhookServer, what: str
) -> None:
    status, answer, number, told = WRONG[what]
    async with a_dps(database_url) as world:
        await two_hubs(world)
        device = a_device()
        webhook.answers["/choose"] = lambda _: (status, answer)
        await enroll(world, device, webhook.url("/choose?code=s3cret"))
        with pytest.raises(AllocationFailedError) as caught:
            await register(world, device)
        assert http_error(caught.value) == (400, number)
        assert told in caught.value.explain_cause()
        assert str(caught.value).startswith("Custom allocation failed")
        assert "hub.example" not in str(caught.value)
        assert "s3cret" not in caught.value.explain_cause() + caught.value.explain_fix() + str(caught.value)
        assert await world.registrations.find(world.instance, "device-1") is None
        assert len(webhook.asked) == (3 if status >= 429 else 1)


async def test_a_program_that_hangs_is_waited_for_so_long_and_no_longer(
    database_url: str, webhook: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("birthmark.outbound.callouts.PATIENCE_S", 0.2)
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with a_dps(database_url) as world:
        await two_hubs(world)
        device = a_device()

        def hang(_: Any) -> Any:
            asyncio.run_coroutine_threadsafe(over.wait(), loop).result()
            return 200, {}

        webhook.answers["/choose"] = hang
        await enroll(world, device, webhook.url("/choose"))
        with pytest.raises(AllocationFailedError) as caught:
            await register(world, device)
        assert "no answer in 0.2 s" in caught.value.explain_cause()
        over.set()


async def test_so_many_wait_for_a_slow_program_and_the_rest_are_told_to_come_again(
    database_url: str, webhook: WebhookServer
) -> None:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with a_dps(database_url) as world:
        await two_hubs(world)
        webhooks = world.enrollments.webhooks

        def slow(_: Any) -> Any:
            asyncio.run_coroutine_threadsafe(over.wait(), loop).result()
            return 200, {}

        webhook.answers["/choose"] = slow
        asking = [
            asyncio.create_task(webhooks.ask("scope", webhook.url("/choose"), {}, facts(f"d-{number}")))
            for number in range(MOST_WAITING)
        ]
        await asyncio.sleep(0)
        with pytest.raises(QuestionsWaitError) as caught:
            await webhooks.ask("scope", webhook.url("/choose"), {}, facts("one more"))
        assert http_error(caught.value) == (429, 429001)
        webhook.answers["/other"] = lambda _: (200, {"a": 1})
        assert await webhooks.ask("scope", webhook.url("/other"), {}, facts("of another")) == b'{"a": 1}'
        over.set()
        await asyncio.gather(*asking)


async def test_who_is_switched_off_while_the_program_thinks_is_not_registered(
    database_url: str, webhook: WebhookServer
) -> None:
    async with a_dps(database_url) as world:
        await two_hubs(world)
        device, loop = a_device(), asyncio.get_running_loop()

        def choose(_: Any) -> Any:
            off = enroll(world, device, webhook.url("/choose"), provisioning_status="disabled")
            asyncio.run_coroutine_threadsafe(off, loop).result()
            return 200, {"iotHubHostName": "hub.example"}

        webhook.answers["/choose"] = choose
        await enroll(world, device, webhook.url("/choose"))
        with pytest.raises(EnrollmentDisabledError):
            await register(world, device)
        assert await world.registrations.find(world.instance, "device-1") is None


async def test_another_program_named_meanwhile_is_the_one_that_counts(
    database_url: str, webhook: WebhookServer
) -> None:
    async with a_dps(database_url) as world:
        await two_hubs(world)
        device, loop = a_device(), asyncio.get_running_loop()

        def choose(_: Any) -> Any:
            other = enroll(world, device, webhook.url("/other"))
            asyncio.run_coroutine_threadsafe(other, loop).result()
            return 200, {"iotHubHostName": "hub.example"}

        webhook.answers["/choose"] = choose
        webhook.answers["/other"] = lambda _: (200, {"iotHubHostName": "second.example"})
        await enroll(world, device, webhook.url("/choose"))
        assert (await register(world, device)).hub == "second.example"


async def test_two_connections_of_one_device_end_at_one_hub(database_url: str, webhook: WebhookServer) -> None:
    async with a_dps(database_url) as world:
        await two_hubs(world)
        device, turns = a_device(), iter(["hub.example", "second.example"] * 10)
        webhook.answers["/choose"] = lambda _: (200, {"iotHubHostName": next(turns)})
        await enroll(world, device, webhook.url("/choose"))
        await asyncio.gather(*(register(world, device) for _ in range(2)))
        kept = await world.registrations.get(world.instance, "device-1")
        known = [host for host in ("hub.example", "second.example") if await world.registry.has(host, "device-1")]
        assert known == [kept.hub]


INSIDE = "https://169.254.169.254/latest", "https://10.1.2.3/", "http://93.184.216.34/", "ftp://example.com/", "x"


@pytest.mark.parametrize("url", INSIDE)
async def test_a_program_inside_or_without_tls_is_refused_when_it_is_named(database_url: str, url: str) -> None:
    async with a_dps(database_url) as world:
        world.enrollments.webhooks = AllocationWebhooks(HttpSender(()))
        with pytest.raises(WebhookInvalidError):
            await enroll(world, a_device(), url)


@pytest.mark.parametrize("given", [{"allocation_policy": "custom"}, {"custom_allocation_definition": True}])
async def test_policy_and_definition_belong_together(database_url: str, given: dict[str, Any]) -> None:
    async with a_dps(database_url) as world:
        await two_hubs(world)
        if "custom_allocation_definition" in given:
            given = {"custom_allocation_definition": CustomAllocation("https://example.com/")}
        wish = msgspec.structs.replace(an_individual("device-1", a_device()), **given)
        with pytest.raises(EnrollmentInvalidError):
            await world.enrollments.put(world.instance, wish, None, actor="test")


async def test_a_device_taken_back_stays_so_where_its_program_may_no_longer_be_asked(
    database_url: str, webhook: WebhookServer
) -> None:
    async with a_dps(database_url) as world:
        await two_hubs(world)
        await enroll(world, a_device(), webhook.url("/choose"))
        world.enrollments.webhooks = AllocationWebhooks(HttpSender(()))
        done = await world.enrollments.revoke_device(world.instance, "device-1", "lost", actor="test")
        assert done.provisioning_status == "disabled"


async def test_a_thief_of_a_name_is_not_even_asked_about(database_url: str, webhook: WebhookServer) -> None:
    async with a_dps(database_url) as world:
        await two_hubs(world)
        await enroll(world, a_device(), webhook.url("/choose"))
        with pytest.raises(BirthmarkError):
            await register(world, a_device())
        assert webhook.asked == []


async def test_a_payload_of_very_many_levels_is_refused_by_name(database_url: str) -> None:
    async with a_dps(database_url) as world:
        await two_hubs(world)
        body = b'{"registrationId": "device-1", "payload": ' + b"[" * 900 + b"]" * 900 + b"}"
        with pytest.raises(wire.BodyInvalidError, match="64 levels"):
            wire.parse_registration(body)


async def test_one_device_has_one_question_at_a_time(database_url: str, webhook: WebhookServer) -> None:
    async with a_dps(database_url) as world:
        await two_hubs(world)
        most = at_once = 0

        def choose(_: Any) -> Any:
            nonlocal most, at_once
            at_once += 1
            most = max(most, at_once)
            time.sleep(0.05)
            at_once -= 1
            return 200, {"iotHubHostName": "hub.example"}

        webhook.answers["/choose"] = choose
        device = a_device()
        await enroll(world, device, webhook.url("/choose"))
        await asyncio.gather(*(register(world, device) for _ in range(4)), return_exceptions=True)
        assert most == 1
