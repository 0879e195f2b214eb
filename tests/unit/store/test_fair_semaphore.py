"""Who reads next on PostgreSQL: each asker in turn."""

import asyncio
from collections.abc import AsyncIterator
from typing import Self

import pytest

from birthmark.fair_semaphore import OWN, FairSemaphore


class Asking:
    """Questions that are asked in turns, and stay until they are answered, or until the end of the test."""

    def __init__(self) -> None:
        self.turns = FairSemaphore(0)
        self.begun: list[str] = []
        self.answers: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def room(self, room: int) -> Self:
        self.turns = FairSemaphore(room)
        return self

    async def _ask(self, name: str) -> None:
        async with self.turns.of(OWN if name.startswith("own") else name[0]):
            self.begun.append(name)
            await self.answers[name].wait()

    async def ask(self, *names: str) -> None:
        for name in names:
            self.answers[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._ask(name))
        await asyncio.sleep(0)

    async def answer(self, *names: str) -> None:
        for name in names:
            self.answers[name].set()
            await self.tasks[name]
            await asyncio.sleep(0)


@pytest.fixture
async def asking() -> AsyncIterator[Asking]:
    asking = Asking()
    yield asking
    for task in asking.tasks.values():
        task.cancel()
    await asyncio.gather(*asking.tasks.values(), return_exceptions=True)


async def test_as_many_are_asked_at_once_as_there_is_room(asking: Asking) -> None:
    asking.room(2)
    await asking.ask("a1", "b1", "a2")
    assert asking.begun == ["a1", "b1"]


async def test_who_asks_once_comes_after_one_question_of_who_asked_a_hundred_before(asking: Asking) -> None:
    asking.room(1)
    await asking.ask(*[f"a{number}" for number in range(100)], "b0")
    await asking.answer("a0", "a1")
    assert asking.begun == ["a0", "a1", "b0"]


async def test_the_questions_of_one_keep_their_order(asking: Asking) -> None:
    asking.room(1)
    await asking.ask("a0", "a1", "b0", "a2", "b1")
    await asking.answer("a0", "a1", "b0", "a2", "b1")
    assert asking.begun == ["a0", "a1", "b0", "a2", "b1"]


async def test_who_gives_up_while_it_waits_takes_nobodys_turn(asking: Asking) -> None:
    asking.room(1)
    await asking.ask("a0", "a1", "b0")
    asking.tasks["a1"].cancel()
    await asyncio.sleep(0)
    await asking.answer("a0")
    assert asking.begun == ["a0", "b0"]


async def test_who_gives_up_as_it_is_called_hands_its_turn_on(asking: Asking) -> None:
    asking.room(1)
    await asking.ask("a0", "b0", "c0")
    asking.answers["a0"].set()
    await asyncio.sleep(0)
    asking.tasks["b0"].cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert asking.begun == ["a0", "c0"]


async def test_after_all_were_answered_there_is_room_again(asking: Asking) -> None:
    asking.room(2)
    await asking.ask("a0", "a1", "a2")
    await asking.answer("a0", "a1", "a2")
    await asking.ask("b0", "b1", "b2")
    assert asking.begun == ["a0", "a1", "a2", "b0", "b1"]


async def test_the_server_itself_has_every_other_turn(asking: Asking) -> None:
    asking.room(1)
    await asking.ask("a0", "b0", "c0", "d0", "own1", "own2")
    await asking.answer("a0", "own1", "b0", "own2", "c0")
    assert asking.begun == ["a0", "own1", "b0", "own2", "c0", "d0"]
