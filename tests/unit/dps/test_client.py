"""The device's side of DPS against canned services."""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.device_transports.ports import HttpResponse, ReceivedMessage
from birthmark.device_transports.web_page_detection import WebPageError
from birthmark.dps import wire
from birthmark.dps.client import (
    DpsBusyError,
    DpsFailedError,
    DpsNotFoundError,
    DpsRefusedError,
    DpsRejectedError,
    DpsTarget,
    HubAssignment,
    is_registered_by_https,
    register_by_https,
    register_by_mqtt,
)
from birthmark.errors import BirthmarkError
from birthmark.mqtt.packets import Connect
from support.fakes import SeededEntropy

TARGET = DpsTarget("dps.test", "0ne00AAAAAA", "device-1", https_port=8443)
ASSIGNING = {"operationId": "4.a.b/c", "status": "assigning", "registrationState": {"registrationId": "device-1"}}
STATE = {"registrationId": "device-1", "assignedHub": "hub.test", "deviceId": "Device-1", "substatus": "s"}
ASSIGNED = {"operationId": "4.a.b/c", "status": "assigned", "registrationState": STATE}
REFUSED = {"errorCode": 401002, "trackingId": "t-1", "message": "Unauthorized\x1b"}
DONE = HubAssignment("hub.test", "Device-1", "device-1", "s")

Answer = tuple[int, int | None, Mapping[str, Any]]


class Waits(list[float]):
    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


class CannedHttps:
    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str]] = []

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b"") -> HttpResponse:
        self.requests.append((method, url))
        assert not body or json.loads(body) == {"registrationId": "device-1"}
        status, retry, answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return HttpResponse(status, {} if retry is None else {"retry-after": str(retry)}, json.dumps(answer).encode())


class CannedMqtt:
    """Answers each publish with the next answer, after a message that belongs to somebody else."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.username = ""
        self.published: list[str] = []
        self.inbox: asyncio.Queue[ReceivedMessage] = asyncio.Queue()
        self.is_closed = False

    async def connect(self, host: str, port: int, connect: Connect) -> bool:
        assert (host, port, connect.client_id) == ("dps.test", 8883, "device-1")
        self.username = connect.username or ""
        return False

    async def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        assert topic_filter == wire.RESPONSES

    async def publish(self, topic: str, payload: bytes, qos: int = 1) -> None:
        self.published.append(topic)
        asked = wire.parse_topic(topic)
        status, retry, answer = self.answers.pop(0)
        self.inbox.put_nowait(ReceivedMessage(wire.response_topic(200, "another"), b"{}"))
        self.inbox.put_nowait(
            ReceivedMessage(wire.response_topic(status, asked.rid, retry), json.dumps(answer).encode())
        )

    async def next_message(self) -> ReceivedMessage:
        return await self.inbox.get()

    async def wait_for_loss(self) -> Exception:
        raise AssertionError

    async def close(self) -> None:
        self.is_closed = True


async def by_https(*answers: Answer) -> tuple[HubAssignment, CannedHttps, Waits]:
    client, waits = CannedHttps(*answers), Waits()
    return (await register_by_https(client, TARGET, pause=waits)), client, waits


async def test_https_asks_until_it_is_assigned_and_waits_as_told() -> None:
    done, client, waits = await by_https((202, 3, ASSIGNING), (202, None, ASSIGNING), (200, None, ASSIGNED))
    assert done == DONE
    base = "https://dps.test:8443/0ne00AAAAAA/registrations/device-1"
    poll = f"{base}/operations/4.a.b%2Fc?api-version=2021-06-01"
    assert client.requests == [("PUT", f"{base}/register?api-version=2021-06-01"), ("GET", poll), ("GET", poll)]
    assert waits == [3, 2]


async def test_mqtt_asks_until_it_is_assigned_and_overlooks_other_answers() -> None:
    client, waits = CannedMqtt((202, 3, ASSIGNING), (200, None, ASSIGNED)), Waits()
    done = await register_by_mqtt(client, TARGET, entropy=SeededEntropy(), pause=waits)
    assert done == DONE
    assert wire.parse_username(client.username).registration_id == "device-1"
    assert isinstance(wire.parse_topic(client.published[0]), wire.RegisterRequest)
    asked = wire.parse_topic(client.published[1])
    assert isinstance(asked, wire.StatusRequest)
    assert asked.operation_id == "4.a.b/c"
    assert (waits, client.is_closed) == ([3], True)


async def test_a_throttled_device_asks_again() -> None:
    done, _client, waits = await by_https(
        (429, 7, REFUSED), (503, None, {}), (202, 1, ASSIGNING), (200, None, ASSIGNED)
    )
    assert (done, waits) == (DONE, [7, 2, 1])


@pytest.mark.parametrize("answer", [(429, 3600, REFUSED), (202, 3600, ASSIGNING)])
async def test_who_is_told_to_come_back_in_an_hour_waits_where_it_hears_orders(answer: Answer) -> None:
    with pytest.raises(DpsBusyError) as busy:
        await by_https(answer)
    assert busy.value.retry_after_s == 3600


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((401, None, REFUSED), DpsRefusedError),
        ((404, None, REFUSED), DpsNotFoundError),
        ((400, None, {}), DpsRejectedError),
        ((429, 1, REFUSED), DpsBusyError),
        ((202, 1, ASSIGNING), DpsBusyError),
        ((200, None, {"status": "failed", "registrationState": {"errorCode": 400208}}), DpsFailedError),
        ((200, None, {"status": "disabled"}), DpsFailedError),
        ((200, None, {"status": ["no"]}), wire.AnswerInvalidError),
    ],
)
async def test_a_refusal_is_told(answer: Answer, error: type[BirthmarkError]) -> None:
    with pytest.raises(error) as refusal:
        await by_https(answer)
    assert refusal.value.explain_cause().isprintable()


@pytest.mark.parametrize(("status", "known"), [(200, True), (404, False)])
async def test_a_lookup_says_whether_a_device_is_registered_and_changes_nothing(status: int, known: bool) -> None:
    service = CannedHttps((status, None, STATE if known else {"errorCode": 404202}))
    assert await is_registered_by_https(service, TARGET) is known
    assert service.requests == [
        ("POST", "https://dps.test:8443/0ne00AAAAAA/registrations/device-1?api-version=2021-06-01")
    ]


@pytest.mark.parametrize(
    ("status", "number", "error"), [(404, 404001, DpsNotFoundError), (401, 401002, DpsRefusedError)]
)
async def test_a_lookup_is_refused_as_a_registration_is(status: int, number: int, error: type[BirthmarkError]) -> None:
    with pytest.raises(error):
        await is_registered_by_https(CannedHttps((status, None, {"errorCode": number})), TARGET)


async def test_a_refusal_over_mqtt_closes_the_connection() -> None:
    client = CannedMqtt((401, None, REFUSED))
    with pytest.raises(DpsRefusedError) as refusal:
        await register_by_mqtt(client, TARGET, entropy=SeededEntropy(), pause=Waits())
    assert "t-1" in refusal.value.explain_fix()
    assert client.is_closed


@given(st.text())
def test_any_topic_is_read_or_refused(topic: str) -> None:
    with contextlib.suppress(wire.AnswerInvalidError):
        assert wire.parse_response_topic(topic).status


@given(st.integers(100, 599), st.text(min_size=1, max_size=40), st.none() | st.integers(0, 3600))
def test_response_topics_read_back(status: int, rid: str, retry: int | None) -> None:
    try:
        topic = wire.response_topic(status, rid, retry)
    except UnicodeEncodeError:
        return
    assert wire.parse_response_topic(topic) == wire.ResponseTopic(status, rid, retry)


@given(st.binary())
def test_any_body_is_read_or_refused(body: bytes) -> None:
    wire.parse_error(body)
    with contextlib.suppress(wire.AnswerInvalidError):
        wire.parse_operation(body)


class Portal:
    """A proxy's page in the place of every answer."""

    def __init__(self, status: int) -> None:
        self.status = status

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b"") -> HttpResponse:
        return HttpResponse(self.status, {"content-type": "text/html"}, b"<title>Blocked by policy</title>")


@pytest.mark.parametrize("status", [200, 403, 404, 503])
async def test_a_proxy_s_page_is_no_answer_of_the_provisioning_service(status: int) -> None:
    for asked in (is_registered_by_https(Portal(status), TARGET), register_by_https(Portal(status), TARGET)):
        with pytest.raises(WebPageError) as refused:
            await asked
        assert (
            "'Blocked by policy', which is not a response of the provisioning service" in refused.value.explain_cause()
        )
