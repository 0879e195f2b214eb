"""Whoever does something to the same thing waits for its turn; others do not."""

import asyncio

from birthmark.broker.keyed_lock import KeyedLock


async def test_one_at_a_time_in_order_and_nothing_is_left_behind() -> None:
    turns: KeyedLock[str] = KeyedLock()
    seen: list[str] = []

    async def act(key: str, name: str) -> None:
        async with turns.lock(key):
            seen.append(f"{name} begins")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            seen.append(f"{name} ends")

    tasks = [asyncio.ensure_future(act("a", str(number))) for number in range(3)]
    other = asyncio.ensure_future(act("b", "other"))
    await asyncio.sleep(0)
    assert "a" in turns
    assert "c" not in turns
    await asyncio.gather(*tasks, other)
    assert [one for one in seen if "other" not in one] == [
        f"{n} {what}" for n in range(3) for what in ("begins", "ends")
    ]
    assert seen.index("other ends") < seen.index("2 begins")
    assert "a" not in turns
    assert "b" not in turns


async def test_a_turn_that_was_cancelled_or_failed_goes_to_the_next() -> None:
    turns: KeyedLock[str] = KeyedLock()
    hold = asyncio.Event()

    async def wait() -> None:
        async with turns.lock("a"):
            await hold.wait()

    first, second, third = (asyncio.ensure_future(wait()) for _ in range(3))
    await asyncio.sleep(0)
    second.cancel()
    first.cancel()
    await asyncio.sleep(0)
    hold.set()
    await third
    assert "a" not in turns
    await asyncio.gather(first, second, return_exceptions=True)
