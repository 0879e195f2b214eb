"""A lost device is looked at again until nothing is open: what was closed before, or failed, is tried as well."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from birthmark.auth.principals import Principal, PrincipalKind
from birthmark.devices.device_directory import DeviceDirectory
from birthmark.devices.model import RevocationOutcome, RevokedPart
from birthmark.devices.ports import DeviceAccess, DeviceRecords, RevocationOrder
from birthmark.devices.revocation import DeviceRevoker
from birthmark.errors import UnavailableError
from birthmark.pki.crl_encoder import RevocationReason

OPERATOR = Principal(PrincipalKind.OPERATOR, "operator")


class Part:
    """Something of the device: whether it is open, how often taking it back fails, and when it opens again."""

    def __init__(self, *, is_open: bool, fails: int = 0, opens_at_look: int | None = None) -> None:
        self.is_open, self.fails, self.opens_at_look = is_open, fails, opens_at_look
        self.looks = 0

    def look(self) -> DeviceAccess:
        self.looks += 1
        self.is_open = self.is_open or self.looks == self.opens_at_look
        return DeviceAccess("hub", "device", "pump-1", self.take_back if self.is_open else None)

    async def take_back(self) -> None:
        if self.fails:
            self.fails -= 1
            raise UnavailableError
        self.is_open = False


class Records(DeviceRecords):
    """What a package has of the device: some parts by place."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self.found = parts

    async def access(self, _order: RevocationOrder) -> AsyncIterator[DeviceAccess]:
        for place, part in self.found.items():
            yield replace(part.look(), place=place)


class Database:
    async def commit(self, _changes: object) -> None: ...


class Broker:
    async def ask_others(self, _request: object) -> Sequence[object]:
        return ()


def revoker(parts: Mapping[str, Part], *only: tuple[str, str, str]) -> DeviceRevoker:
    database, broker = cast("Any", Database()), cast("Any", Broker())
    return DeviceRevoker(DeviceDirectory(database, broker, [Records(parts)]), frozenset(only))


async def revoked(part: Part) -> RevokedPart:
    (done,) = await revoker({"hub": part}).revoke("pump-1", OPERATOR, RevocationReason.KEY_COMPROMISE)
    return done


async def test_what_opens_again_between_two_looks_is_taken_back() -> None:
    part = Part(is_open=False, opens_at_look=2)
    assert (await revoked(part)).became is RevocationOutcome.REVOKED
    assert not part.is_open


async def test_what_failed_once_is_tried_again() -> None:
    part = Part(is_open=True, fails=1)
    assert (await revoked(part)).became is RevocationOutcome.REVOKED
    assert not part.is_open


async def test_what_fails_at_every_look_is_said_to_have_failed() -> None:
    assert (await revoked(Part(is_open=True, fails=99))).became is RevocationOutcome.FAILED


async def test_of_a_device_whose_rest_is_left_only_that_is_taken_back() -> None:
    parts = {place: Part(is_open=True) for place in ("hub", "enabled again")}
    only = ("hub", "device", "pump-1")
    await revoker(parts, only).revoke("pump-1", OPERATOR, RevocationReason.KEY_COMPROMISE)
    assert [part.is_open for part in parts.values()] == [False, True]


async def test_what_was_taken_back_before_and_stays_so_is_looked_at_twice() -> None:
    part = Part(is_open=False)
    assert (await revoked(part)).became is RevocationOutcome.WAS_REVOKED
    assert part.looks == 2
