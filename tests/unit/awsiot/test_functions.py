"""Functions by their ARN: what is sent, and which answers are none."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from birthmark.awsiot.ports import FunctionCaller
from birthmark.awsiot.service.lambda_functions import (
    FunctionFailedError,
    FunctionNotMappedError,
    LambdaFunction,
    MappedFunctions,
)
from birthmark.outbound import callouts
from birthmark.outbound.ssrf_guard import AddressRefusedError
from birthmark.outbound.webhook_signature import headers_of, secret_of
from support.fakes import FakeClock, SeededEntropy

ARN = "arn:aws:lambda:us-east-1:000000000000:function:hook"
SECRET = secret_of(b"k" * 32)


class Peer:
    """Answers calls as it is told to."""

    def __init__(self, status: int = 200, body: bytes = b"{}", problem: Exception | None = None) -> None:
        self.status, self.body, self.problem = status, body, problem
        self.asked: list[tuple[str, str, Mapping[str, str], bytes]] = []
        self.holds = False

    async def fetch(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, most: int
    ) -> tuple[int, bytes]:
        self.asked.append((method, url, headers, body))
        assert most == callouts.MAX_ANSWER_BYTES
        if self.holds:
            await asyncio.Event().wait()
        if self.problem is not None:
            raise self.problem
        return self.status, self.body


def mapped(peer: Peer) -> MappedFunctions:
    hook = LambdaFunction("https://hook.example/x", "hook.example", SECRET)
    return MappedFunctions(FakeClock(), SeededEntropy(), peer, {ARN: hook})


@pytest.mark.anyio
async def test_a_function_is_sent_its_event_signed_and_what_it_says_is_returned() -> None:
    peer = Peer(body=b'{"allowProvisioning": true}')
    assert await mapped(peer).call(ARN, {"a": 1}, FunctionCaller.UNAUTHENTICATED) == {"allowProvisioning": True}
    ((method, url, headers, body),) = peer.asked
    assert (method, url, body) == ("POST", "https://hook.example/x", b'{"a": 1}')
    again = headers_of(headers["webhook-id"], int(headers["webhook-timestamp"]), body, [SECRET])
    assert headers["webhook-signature"] == again["webhook-signature"]


@pytest.mark.anyio
async def test_a_function_without_an_address_is_refused_by_name() -> None:
    with pytest.raises(FunctionNotMappedError, match="function:other"):
        await mapped(Peer()).call(f"{ARN[:-4]}other", {}, FunctionCaller.KNOWN)
    with pytest.raises(FunctionNotMappedError):
        await MappedFunctions(FakeClock(), SeededEntropy()).call(ARN, {}, FunctionCaller.KNOWN)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("peer", "reason"),
    [
        (Peer(status=302), "it answers 302"),
        (Peer(status=500), "it answers 500"),
        (Peer(body=b""), "not JSON"),
        (Peer(body=b"[" * 5000), "not JSON"),
        (Peer(body=b"\xff"), "not JSON"),
        (Peer(problem=AddressRefusedError(address="10.0.0.1", host="hook.example")), "10.0.0.1"),
    ],
)
async def test_what_is_no_answer_fails_with_its_reason(peer: Peer, reason: str) -> None:
    with pytest.raises(FunctionFailedError) as failed:
        await mapped(peer).call(ARN, {}, FunctionCaller.UNAUTHENTICATED)
    assert reason in failed.value.explain_cause()
    assert reason not in str(failed.value), "who asked is not told where it is"


@pytest.mark.anyio
async def test_a_function_that_hangs_has_failed_in_time_and_delays_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callouts, "PATIENCE_S", 0.05)
    peer = Peer()
    peer.holds = True
    hook = mapped(peer)

    async def call(whose: str) -> Any:
        with pytest.raises(FunctionFailedError):
            await hook.call(ARN, {}, FunctionCaller.UNAUTHENTICATED, whose)

    async with asyncio.TaskGroup() as group:
        for number in range(callouts.MOST_WAITING + 10):
            group.create_task(call(str(number)))
    assert callouts.MOST_AT_ONCE <= len(peer.asked) <= callouts.MOST_WAITING
    peer.holds = False
    assert await hook.call(ARN, {}, FunctionCaller.UNAUTHENTICATED) == {}


async def test_one_of_many_calls_leaves_room_and_its_turn_to_another() -> None:
    peer = Peer()
    peer.holds = True
    hook = mapped(peer)

    def start(caller: FunctionCaller, whose: str) -> asyncio.Task[Any]:
        return asyncio.create_task(hook.call(ARN, {"whose": whose}, caller, whose))

    tasks = [start(FunctionCaller.UNAUTHENTICATED, "one") for _ in range(callouts.MOST_WAITING)] + [
        start(FunctionCaller.UNAUTHENTICATED, "another")
    ]
    try:
        await asyncio.sleep(0.01)
        refused = [task for task in tasks if task.done()]
        assert len(refused) == callouts.MOST_WAITING - callouts.MOST_OF_ONE
        assert all(isinstance(task.exception(), FunctionFailedError) for task in refused)
        for task in tasks[:2]:
            task.cancel()
        await asyncio.sleep(0.01)
        assert b"another" in b"".join(body for *_, body in peer.asked[-2:]), "it waited for one of the first's"
        tasks.append(start(FunctionCaller.PERSON, "somebody"))
        await asyncio.sleep(0.01)
        assert b"somebody" in peer.asked[-1][3], "people wait for no client"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
