"""A lost device is looked at again until nothing is open: what was closed before, or failed, is tried as well."""

from collections.abc import AsyncIterator, Sequence

import pytest

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.console.taken import Became, Taken
from birthmark.errors import UnavailableError
from birthmark.pki.crl import RevocationReason
from birthmark.server.losing.rooms import Found, Looking
from birthmark.server.losing.service import Losing

OPERATOR = Principal(PrincipalKind.OPERATOR, "operator")


class Part:
    """Something of the device: whether it is open, how often taking it back fails, and when it opens again."""

    def __init__(self, *, is_open: bool, fails: int = 0, opens_at_look: int | None = None) -> None:
        self.is_open, self.fails, self.opens_at_look = is_open, fails, opens_at_look
        self.looks = 0

    def look(self) -> Found:
        self.looks += 1
        self.is_open = self.is_open or self.looks == self.opens_at_look
        return Found("hub", "device", "pump-1", self.take_back if self.is_open else None)

    async def take_back(self) -> None:
        if self.fails:
            self.fails -= 1
            raise UnavailableError
        self.is_open = False


class Database:
    async def commit(self, _changes: object) -> None: ...


class Rooms:
    database = Database()


async def lost(part: Part, monkeypatch: pytest.MonkeyPatch) -> Taken:
    async def look(*_: object) -> Sequence[Found]:
        return [part.look()]

    async def left(_: Losing) -> Sequence[Taken]:
        return []

    monkeypatch.setattr(Losing, "_look", look)
    monkeypatch.setattr(Losing, "_left", left)
    losing = Losing(Rooms())  # type: ignore[arg-type]  # as much of them as it asks for
    (taken,) = await losing.take_back("pump-1", OPERATOR, RevocationReason.KEY_COMPROMISE)
    return taken


async def test_what_opens_again_between_two_looks_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    part = Part(is_open=False, opens_at_look=2)
    assert (await lost(part, monkeypatch)).became is Became.TAKEN_BACK
    assert not part.is_open


async def test_what_failed_once_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    part = Part(is_open=True, fails=1)
    assert (await lost(part, monkeypatch)).became is Became.TAKEN_BACK
    assert not part.is_open


async def test_what_fails_at_every_look_is_said_to_have_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await lost(Part(is_open=True, fails=99), monkeypatch)).became is Became.FAILED


async def test_of_a_device_whose_rest_is_left_only_that_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def everything(_: Looking) -> AsyncIterator[Found]:
        for place, part in parts.items():
            yield Found(place, "device", "pump-1", part.take_back)

    async def left(_: Losing) -> Sequence[Taken]:
        return []

    parts = {place: Part(is_open=True) for place in ("hub", "let in again")}
    monkeypatch.setattr(Looking, "everything", everything)
    monkeypatch.setattr(Losing, "_left", left)
    losing = Losing(Rooms(), frozenset({("hub", "device", "pump-1")}))  # type: ignore[arg-type]  # as above
    await losing.take_back("pump-1", OPERATOR, RevocationReason.KEY_COMPROMISE)
    assert [part.is_open for part in parts.values()] == [False, True]


async def test_what_was_taken_back_before_and_stays_so_is_looked_at_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    part = Part(is_open=False)
    assert (await lost(part, monkeypatch)).became is Became.WAS
    assert part.looks == 2
