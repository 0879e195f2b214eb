"""Receivers whose names nobody answers for: who looks them up keeps nobody else waiting."""

import asyncio
import socket
import threading
from typing import Any

import pytest

from birthmark.outbound.http_client import HttpSender, NotAnsweredError

pytestmark = pytest.mark.integration
COUNT = 24


async def test_names_that_nobody_answers_for_leave_the_threads_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def never(*_args: Any, **_options: Any) -> Any:
        over.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    sender = HttpSender(())
    asking = [asyncio.create_task(sender.post(f"https://h{n}.example/", {}, b"")) for n in range(COUNT)]
    try:
        await asyncio.sleep(0.2)
        async with asyncio.timeout(5):
            assert await asyncio.to_thread(lambda: "a password that is checked") != ""
    finally:
        over.set()
        found = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(one, NotAnsweredError) for one in found)


async def test_a_name_that_cannot_be_one_is_an_answer_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come from elsewhere than from who makes a webhook: a provider's metadata."""
    monkeypatch.setattr("birthmark.outbound.http_client.check_url", lambda *_args, **_options: "a..example")
    with pytest.raises(NotAnsweredError):
        await HttpSender(()).post("https://a..example/", {}, b"")
