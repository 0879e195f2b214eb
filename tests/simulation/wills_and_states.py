"""Things that leave a will with each connection and retain their state, on simulated workers, and who reads both."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from birthmark.mqtt.packets import WillMessage
from simulation.aws import STATES, Account, Thing
from simulation.book import Doing
from simulation.lines import Line
from simulation.rooms import RoomWorker
from support.kills.history import Finding, Operation, Outcome, of_messages, of_registers

WILLS = "w/"
EVERY_WILL = f"{WILLS}+"
_NEAR_S = 10.0


class Speaker(Thing):
    """A thing whose state is retained, and which leaves a will of its own with each connection."""

    def __init__(self, *more: Any) -> None:
        super().__init__(*more)
        self._wills: list[tuple[Line, Doing]] = []
        self._ends: dict[str, float] = {}
        """When which worker was killed."""

    def connect(self, place: int, *, clean: bool = False) -> Line:
        text = f"{self.name}.w{next(self._texts)}"
        self.will = WillMessage(f"{WILLS}{self.name}", text.encode(), 1)
        doing = self.account.book.begun("will", self.name, text)
        line = super().connect(place, clean=clean)
        self._wills.append((line, doing))
        return line

    def tell_state(self) -> None:
        """Publish its state, which is retained."""
        self.publish(topic=f"{STATES}{self.name}", kind="state")

    def killed(self, worker: RoomWorker) -> None:
        super().killed(worker)
        self._ends[worker.name] = self.account.book.now

    def wills(self) -> Iterator[Operation]:
        """Yield each will: owed where the connection was accepted and is over, and not to come before it is."""
        for line, doing in self._wills:
            outcome = Outcome.OK if line.is_over else Outcome.FAILED
            if not line.is_open or self._was_lost_twice(line.worker):
                outcome = Outcome.UNKNOWN
            yield Operation(self.name, doing.value, 0.0, math.inf, outcome)

    def _was_lost_twice(self, worker: RoomWorker) -> bool:
        """Say whether a worker was killed, and near that time another, which may have taken its sessions over."""
        end = self._ends.get(worker.name, -math.inf)
        return any(abs(other - end) < _NEAR_S for name, other in self._ends.items() if name != worker.name)


async def findings(account: Account) -> list[Finding]:
    """Return what is wrong with wills, which `hears` listens to, and with states, which somebody reads now."""
    book, speakers = account.book, [one for one in account.things.values() if isinstance(one, Speaker)]
    wills = [will for one in speakers for will in one.wills()]
    values = {will.value for will in wills}
    heard = [replace(one, device=_name_of(one.value)) for one in book.seen("got by hears") if one.value in values]
    # As at AWS, a filter with a wildcard is sent nothing retained.
    reader = await account.thing("reader", *(f"{STATES}{one.name}" for one in speakers))
    began = book.now
    await account.connected(reader, 0)
    await account.house.live_on(1.0)
    read = {_name_of(one.value): one.value for one in book.seen("got by reader")}
    reads = [Operation(one.name, read.get(one.name), began, book.now) for one in speakers]
    return [*of_messages(wills, heard), *of_registers(_in_turn(book.operations("state")), reads)]


def _in_turn(states: Iterable[Operation]) -> Iterator[Operation]:
    """Yield them one after the other: what one thing sends has an order."""
    for number, one in enumerate(states):
        yield replace(one, began=-1e6 + number, ended=-1e6 + number + 0.5)


def _name_of(text: str) -> str:
    return text.rpartition(".")[0]
