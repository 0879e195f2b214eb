"""What workers say to each other where the bus is tried, and what each of them heard."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

from birthmark.bus import Bus, BusRequest, EmptyReply, Reply
from birthmark.errors import ThrottledError
from birthmark.store import Event
from support.store.store_table import ThingTold


class DeviceMoved(Event, frozen=True, tag="test.device_moved"):
    """An event whose order is known."""

    device: str
    place: str

    @property
    def entity(self) -> str:
        return self.device


class Sum(Reply, frozen=True, tag="test.sum"):
    total: int


class Add(BusRequest[Sum], frozen=True, tag="test.add"):
    first: int
    second: int


class Note(BusRequest[EmptyReply], frozen=True, tag="test.note"):
    text: str


class Hang(BusRequest[EmptyReply], frozen=True, tag="test.hang"):
    """Is never answered."""


class Stumble(BusRequest[EmptyReply], frozen=True, tag="test.stumble"):
    """Meets a mistake of ours."""


class Refuse(BusRequest[EmptyReply], frozen=True, tag="test.refuse"):
    """Is refused."""


@dataclass
class Desk:
    """What each worker heard, and noted."""

    heard: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    noted: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def join(self, bus: Bus) -> None:
        worker = bus.worker

        async def add(asked: Add) -> Sum:
            return Sum(asked.first + asked.second)

        async def note(asked: Note) -> EmptyReply:
            await asyncio.sleep(0)
            self.noted[worker].append(asked.text)
            return EmptyReply()

        async def hang(_asked: Hang) -> EmptyReply:
            await asyncio.Event().wait()
            return EmptyReply()

        async def stumble(_asked: Stumble) -> EmptyReply:
            raise ValueError("a mistake")

        async def refuse(_asked: Refuse) -> EmptyReply:
            raise ThrottledError(retry_after_s=7)

        bus.on(ThingTold, lambda event: self.heard[worker].append(event.word))
        bus.on(DeviceMoved, lambda event: self.heard[worker].append(f"{event.device} {event.place}"))
        bus.serve(Add, add)
        bus.serve(Note, note)
        bus.serve(Hang, hang)
        bus.serve(Stumble, stumble)
        bus.serve(Refuse, refuse)
