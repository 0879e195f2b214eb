"""RSA keys of the service: each principal in turn, and none waits for many."""

import asyncio
from typing import Any

import pytest

from birthmark.awsiot.service.certificates import AT_ONCE, MAX_OF_ONE, RsaKeys, TooManyOwnedError

pytestmark = pytest.mark.anyio


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Who got a key, in order; they are not made."""
    made: list[str] = []

    async def at_once(*_: Any) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(asyncio, "to_thread", at_once)
    return made


async def test_who_asks_for_one_waits_for_a_turn_of_who_asks_for_many(made: list[str]) -> None:
    keys = RsaKeys()

    async def ask(principal: str) -> None:
        await keys.make(principal)
        made.append(principal)

    many = [asyncio.create_task(ask("many")) for _ in range(MAX_OF_ONE)]
    await asyncio.sleep(0)
    await ask("one")
    assert made.count("many") <= 2 * AT_ONCE
    await asyncio.gather(*many)


async def test_who_waits_for_many_is_refused_another_and_others_are_not(made: list[str]) -> None:
    keys = RsaKeys()
    many = [asyncio.create_task(keys.make("many")) for _ in range(MAX_OF_ONE)]
    await asyncio.sleep(0)
    with pytest.raises(TooManyOwnedError) as refused:
        await keys.make("many")
    assert refused.value.facts["principal"] == "many"
    await keys.make("one")
    await asyncio.gather(*many)
    await keys.make("many")
    assert made == []
