"""Deciding again when another was faster."""

import pytest

from birthmark.errors import ChangedMeanwhileError, ConflictError
from birthmark.store import retry_on_conflict


class Decision:
    """Is overtaken so many times before it holds."""

    def __init__(self, overtaken: int, error: ConflictError) -> None:
        self.left, self.error, self.looks = overtaken, error, 0

    async def __call__(self) -> str:
        self.looks += 1
        if self.looks <= self.left:
            raise self.error
        return "decided"


async def test_who_was_overtaken_once_looks_again() -> None:
    decision = Decision(1, ChangedMeanwhileError())
    assert await retry_on_conflict(decision) == "decided"
    assert decision.looks == 2


async def test_who_is_overtaken_at_every_attempt_is_told() -> None:
    decision = Decision(5, ConflictError())
    with pytest.raises(ConflictError):
        await retry_on_conflict(decision, after=ConflictError, attempts=5)
    assert decision.looks == 5


async def test_another_refusal_is_not_asked_twice() -> None:
    decision = Decision(1, ConflictError())
    with pytest.raises(ConflictError):
        await retry_on_conflict(decision)
    assert decision.looks == 1
