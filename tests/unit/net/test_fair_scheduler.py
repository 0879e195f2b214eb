"""Who has more to do than a slice of time has a turn after each look of the loop at everybody else, and no second."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Generator
from functools import partial
from itertools import count

import pytest

from birthmark.net import fair_scheduler
from birthmark.net.fair_scheduler import SLICE_S, TURN_S, Backlog


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    monkeypatch.setattr(fair_scheduler, "now", lambda: next(ticks))  # each look at the clock is a slice later
    monkeypatch.setattr(fair_scheduler, "SLICE_S", 1)
    monkeypatch.setattr(fair_scheduler, "TURN_S", 3 * TURN_S / SLICE_S)  # it is looked at three times for each slice


async def test_between_two_looks_of_the_loop_all_who_have_more_work_for_one_turn() -> None:
    waiting, worked = Backlog.running(), 0

    def go_on() -> None:
        nonlocal worked
        worked += 1
        waiting.add(go_on, "one")

    waiting.add(go_on, "one")
    for _ in range(20):
        before = worked
        await asyncio.sleep(0)
        assert worked - before <= TURN_S / SLICE_S + 1
    assert worked >= 20


async def test_all_who_wait_work_in_turn() -> None:
    waiting, worked = Backlog.running(), []

    def one(name: str) -> None:
        worked.append(name)
        waiting.add(partial(one, name), name)

    for name in "abc":
        waiting.add(partial(one, name), name)
    for _ in range(6):
        await asyncio.sleep(0)
    assert worked[:9] == ["a", "b", "c"] * 3


async def test_who_has_a_thousand_connections_has_as_many_turns_as_who_has_one() -> None:
    waiting, worked = Backlog.running(), []

    def one(name: str, owner: str) -> None:
        worked.append(name)
        waiting.add(partial(one, name, owner), owner)

    for number in range(1000):
        waiting.add(partial(one, f"many-{number}", "many"), "many")
    waiting.add(partial(one, "alone", "single"), "single")
    for _ in range(20):
        await asyncio.sleep(0)
    assert worked[1::2] == ["alone"] * (len(worked) // 2)
    assert worked[::2] == [f"many-{number}" for number in range((len(worked) + 1) // 2)]


async def test_a_turn_is_a_slice_of_time_and_not_one_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    time, served = 0.0, 0
    for name, value in (("now", lambda: time), ("SLICE_S", SLICE_S), ("TURN_S", TURN_S)):
        monkeypatch.setattr(fair_scheduler, name, value)
    waiting = Backlog.running()

    def flood() -> None:
        nonlocal time
        time += SLICE_S
        waiting.add(flood, "flooder")

    def small() -> None:
        nonlocal time, served
        time, served = time + SLICE_S / 16, served + 1

    waiting.add(flood, "flooder")
    for _ in range(1000):  # of as many devices behind one address
        waiting.add(small, "address")
    while served < 1000:
        await asyncio.sleep(0)
    assert time <= SLICE_S * 2.1 * 1000 / 16


async def test_what_was_begun_is_ended_before_what_else_its_owner_has() -> None:
    waiting, worked = Backlog.running(), []

    def one(name: str, left: int) -> None:
        worked.append(name)
        if left:
            waiting.add_next(partial(one, name, left - 1), "one")

    for name in "ab":
        waiting.add(partial(one, name, 2), "one")
    waiting.add(partial(one, "c", 0), "another")
    for _ in range(6):
        await asyncio.sleep(0)
    assert worked == ["a", "c", "a", "a", "b", "b", "b"]
    assert not waiting


async def test_steps_are_taken_for_a_slice_at_a_time_those_of_an_owner_in_their_order() -> None:
    waiting, taken = Backlog.running(), []

    def steps(name: str, count: int) -> Generator[None, None, str]:
        for number in range(count):
            taken.append(f"{name}{number}")
            yield
        return name

    work = [
        waiting.run_in_turns(steps("a", 8), "one"),
        waiting.run_in_turns(steps("b", 1), "one"),
        waiting.run_in_turns(steps("c", 2), "two"),
    ]
    turns = 0
    while not work[0].done():
        before, turns = len(taken), turns + 1
        await asyncio.sleep(0)
        assert len(taken) - before <= 2 * (TURN_S / SLICE_S + 1)
    assert turns > 1
    assert await asyncio.gather(*work) == ["a", "b", "c"]
    assert [one for one in taken if one[0] != "c"] == [f"a{number}" for number in range(8)] + ["b0"]
    assert taken.index("c1") < taken.index("a7"), "another owner waits for no more than a turn"


async def test_who_waits_for_steps_is_told_what_went_wrong_in_them() -> None:
    def steps() -> Generator[None, None, None]:
        yield
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await Backlog.running().run_in_turns(steps(), "one")


async def test_what_an_owner_has_is_known_until_its_last_turn() -> None:
    waiting = Backlog.running()
    waiting.add(lambda: None, "one")
    waiting.add(lambda: None, "one")
    assert "one" in waiting
    assert "another" not in waiting
    await asyncio.sleep(0)
    assert "one" not in waiting


async def test_a_mistake_of_one_keeps_no_other_waiting() -> None:
    waiting, worked = Backlog.running(), []

    def mistaken() -> None:
        raise ZeroDivisionError

    waiting.add(mistaken, "one")
    waiting.add(lambda: worked.append("other"), "another")
    await asyncio.sleep(0)
    assert worked == ["other"]


def works(waiting: Backlog, owner: str, times: int) -> None:
    for _ in range(times):
        waiting.begin()
        waiting.end(owner)


async def test_who_used_its_slice_of_a_full_round_waits_and_the_next_round_begins_anew() -> None:
    waiting, whole = Backlog.running(), int(fair_scheduler.TURN_S)
    works(waiting, "one", 2)
    works(waiting, "single", 1)
    works(waiting, "many", whole - 3)
    assert not any(waiting.is_behind(owner) for owner in ("one", "single", "many")), "it costs nobody anything"
    assert not waiting.is_full
    works(waiting, "many", 1)
    assert waiting.is_full
    assert [waiting.is_behind(owner) for owner in ("one", "single", "many", "new")] == [True, False, True, False]
    await asyncio.sleep(0)
    assert not waiting.is_behind("many")


class Peer:
    def __init__(self, owner: str) -> None:
        self.owner = owner


async def test_who_works_little_has_its_turn_without_a_turn_of_the_loop() -> None:
    waiting, asked = Backlog.running(), []

    async def ask() -> None:
        await waiting.wait_for_turn("one")
        asked.append("one")

    asyncio.get_running_loop().call_soon(asked.append, "loop")
    await waiting.account_steps(ask(), Peer("one"))
    assert asked == ["one"]


async def test_each_step_of_a_task_is_known_to_be_its_owners_and_what_others_do_between_is_not() -> None:
    waiting, seen = Backlog.running(), []

    async def ask() -> None:
        seen.append(waiting.current_owner)
        await asyncio.sleep(0)
        seen.append(waiting.current_owner)

    asking = asyncio.create_task(waiting.account_steps(ask(), Peer("one")))
    await asyncio.sleep(0)
    seen.append(waiting.current_owner)
    await asking
    assert seen == ["one", "", "one"]


async def test_a_request_is_its_askers_once_that_is_known_wherever_it_comes_from() -> None:
    waiting, seen = Backlog.running(), list[str]()

    async def ask() -> None:
        seen.append(waiting.current_owner)
        fair_scheduler.count_for("user:anna")
        await asyncio.sleep(0)
        seen.append(waiting.current_owner)

    await asyncio.gather(
        waiting.account_steps(ask(), Peer("192.0.2.7")), waiting.account_steps(ask(), Peer("192.0.2.8"))
    )
    assert sorted(seen) == ["192.0.2.7", "192.0.2.8", "user:anna", "user:anna"]
    assert waiting.current_owner == ""


async def test_tasks_of_an_owner_that_never_wait_for_anything_work_for_a_turn_between_two_looks_of_the_loop() -> None:
    waiting, answered = Backlog.running(), 0

    async def ask(times: int) -> None:
        nonlocal answered
        for _ in range(times):
            await waiting.wait_for_turn("many")
            answered += 1

    tasks = [asyncio.create_task(waiting.account_steps(ask(8), Peer("many"))) for _ in range(100)]
    looks = 0
    while answered < 800:
        before, looks = answered, looks + 1
        await asyncio.sleep(0)
        assert answered - before <= 2 * (fair_scheduler.TURN_S + 1)
    assert looks > 800 / (2 * (fair_scheduler.TURN_S + 1)) - 1
    await asyncio.gather(*tasks)


async def test_a_task_whose_steps_are_dear_is_lent_what_they_cost() -> None:
    waiting, answered = Backlog.running(), 0

    async def ask() -> None:
        nonlocal answered
        await waiting.wait_for_turn("dear")
        for _ in range(int(fair_scheduler.TURN_S)):
            fair_scheduler.now()
        answered += 1

    tasks = [asyncio.create_task(waiting.account_steps(ask(), Peer("dear"))) for _ in range(40)]
    while answered < 8:  # what a step costs is not known before
        await asyncio.sleep(0)
    while answered < 40:
        before = answered
        await asyncio.sleep(0)
        assert answered - before <= 1
    await asyncio.gather(*tasks)


async def test_a_task_that_a_request_begins_works_for_its_asker() -> None:
    waiting, seen = Backlog.running(), list[str]()

    async def inner() -> None:
        seen.append(waiting.current_owner)

    async def ask() -> None:
        fair_scheduler.count_for("user:anna")
        await asyncio.gather(fair_scheduler.begin_task(inner()), asyncio.ensure_future(inner()))

    await waiting.account_steps(ask(), Peer("192.0.2.7"))
    await fair_scheduler.begin_task(inner())
    assert seen == ["user:anna", "", ""]


async def test_who_took_long_in_one_step_rests_as_long_while_others_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("now", time.perf_counter), ("SLICE_S", SLICE_S), ("TURN_S", TURN_S)):
        monkeypatch.setattr(fair_scheduler, name, value)
    waiting, order = Backlog.running(), list[str]()

    async def ask(owner: str, takes_s: float) -> None:
        await waiting.wait_for_turn(owner)
        order.append(owner)
        time.sleep(takes_s)  # it keeps the loop

    await waiting.account_steps(ask("dear", 0.05), Peer("dear"))
    resting = asyncio.create_task(waiting.account_steps(ask("dear", 0.0), Peer("dear")))
    for _ in range(5):
        await asyncio.sleep(0)
        await waiting.account_steps(ask("other", 0.0), Peer("other"))
    await resting
    assert order == ["dear", *["other"] * 5, "dear"]


async def test_a_task_waits_for_its_own_owners_others_and_for_nobody_elses() -> None:
    waiting, worked = Backlog.running(), []

    async def ask(owner: str) -> None:
        await waiting.wait_for_turn(owner)
        worked.append(owner)

    waiting.add(lambda: worked.append("before"), "many")
    await waiting.account_steps(ask("single"), Peer("single"))
    await waiting.account_steps(ask("many"), Peer("many"))
    assert worked == ["single", "before", "many"]


@pytest.mark.parametrize("steps", [0, 1, 2])
async def test_work_that_is_cancelled_before_its_turn_is_closed(steps: int) -> None:
    waiting, gate = Backlog.running(), asyncio.get_running_loop().create_future()

    async def ask() -> None:
        pass

    async def turn(work: Awaitable[None]) -> None:
        await gate
        await work

    work = ask()
    waits = turn(work)
    task = waiting.start(waits, work, Peer("one"))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    await asyncio.sleep(0)
    assert (inspect.getcoroutinestate(work), inspect.getcoroutinestate(waits)) == (inspect.CORO_CLOSED,) * 2


async def test_who_gives_up_its_turn_keeps_nobody_waiting() -> None:
    waiting, worked = Backlog.running(), []
    waiting.add(lambda: worked.append("before"), "one")
    gone = waiting.wait_for_turn("one")
    gone.send(None).cancel()
    waiting.add(lambda: worked.append("after"), "one")
    while waiting:
        await asyncio.sleep(0)
    assert worked == ["before", "after"]
    gone.close()


async def test_what_is_counted_hears_of_its_end_and_of_what_went_wrong() -> None:
    waiting = Backlog.running()

    async def wrong() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    async def patient() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "cancelled"
        return "never"

    with pytest.raises(ZeroDivisionError):
        await waiting.account_steps(wrong(), Peer("one"))
    task = asyncio.create_task(waiting.account_steps(patient(), Peer("one")))
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "cancelled"


async def test_a_decision_that_needs_no_step_is_there_at_once_and_another_in_its_owners_turns() -> None:
    waiting, order = Backlog.running(), []

    def known() -> Generator[None, None, str]:
        order.append("known")
        return "known"
        yield

    def new() -> Generator[None, None, str]:
        yield
        order.append("new")
        return "new"

    waiting.add(lambda: order.append("before"), "one")
    assert await waiting.run_decision(known(), "one") == "known"
    assert await waiting.run_decision(new(), "one") == "new"
    assert order == ["known", "before", "new"]
