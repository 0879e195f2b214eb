"""What is asked of the database for whoever probes the server."""

import asyncio
from datetime import timedelta

from birthmark.server.mqtt_and_http_dispatch import KEPT_S, DependencyCheck
from support.fakes import FakeClock


async def test_many_who_ask_at_once_and_within_a_second_are_one_question() -> None:
    clock, answers = FakeClock(), [True, False]

    async def ask() -> bool:
        await asyncio.sleep(0)
        return answers.pop(0)

    reach = DependencyCheck(ask, clock)
    assert await asyncio.gather(*(reach.is_available() for _ in range(5))) == [True] * 5
    clock.move(timedelta(seconds=KEPT_S / 2))
    assert await reach.is_available()
    clock.move(timedelta(seconds=KEPT_S))
    assert not await reach.is_available()


async def test_who_gives_up_takes_the_answer_from_nobody_else() -> None:
    may_answer = asyncio.Event()

    async def ask() -> bool:
        return await may_answer.wait()

    reach = DependencyCheck(ask, FakeClock())
    first, second = (asyncio.ensure_future(reach.is_available()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    may_answer.set()
    assert await second
