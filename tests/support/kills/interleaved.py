"""Every pair of operations, one of them done whole at each place where the other waits for the database.

What comes of it has to be what came of the one before the other, or of the other before the one: the same answers, the
same rows. Whoever decides on something read before a wait, without a condition on it, leaves something else.
"""

import asyncio
import contextlib
import contextvars
import hashlib
import json
import re
import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from birthmark.bus import LocalBus
from birthmark.ca import ca_directory
from birthmark.ca.hierarchy import Hierarchy
from birthmark.ca.passphrase_sources import Passphrase
from birthmark.ca.root_generation_directories import Generations
from birthmark.ca.root_rollover import Rollovers
from birthmark.errors import BirthmarkError
from birthmark.server.composition_root import ServerServices, open_rooms
from birthmark.server.counter_verification import CounterValues
from birthmark.server.settings import Settings
from birthmark.store import Database, open_database
from support.fakes import FakeClock

_LEFT_OUT = {"audit", "audit_heads", "outbox", "alembic_version", "server_facts", "workers", "sqlite_sequence"}
_PROVEN = {"figures"}
_TURN_S = 0.3
_MUCH = 200
_RANDOM = re.compile(r"[0-9a-zA-Z+/_=-]{16,}|(?<=\"etag\":)\"[^\"]*\"")

Operation = Callable[[ServerServices], Awaitable[object]]
_doing: contextvars.ContextVar[str] = contextvars.ContextVar("doing", default="world")


class OwnEntropy:
    """Gives each operation chance of its own: what it draws does not hang on who drew before."""

    def __init__(self) -> None:
        self._drawn: dict[str, int] = {}

    def token(self, n: int) -> bytes:
        who, out = _doing.get(), b""
        while len(out) < n:
            self._drawn[who] = self._drawn.get(who, 0) + 1
            out += hashlib.sha256(f"{who}:{self._drawn[who]}".encode()).digest()
        return out[:n]


class Stepping:
    """A database that lets another operation in before a certain call of one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.whose, self.at, self.calls = "", -1, 0
        self.between: Callable[[], Awaitable[None]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def _step(self) -> None:
        if _doing.get() == self.whose:
            self.calls += 1
            if self.calls == self.at and self.between is not None:
                await self.between()

    async def one(self, *args: Any, **params: Any) -> Any:
        await self._step()
        return await self._database.one(*args, **params)

    async def all(self, *args: Any, **params: Any) -> Any:
        await self._step()
        return await self._database.all(*args, **params)

    async def read_in_background(self, *args: Any, **params: Any) -> Any:
        await self._step()
        return await self._database.read_in_background(*args, **params)

    async def commit(self, changes: Any) -> None:
        await self._step()
        await self._database.commit(changes)


@dataclass(frozen=True)
class Came:
    """What came of some operations: of each its answer, what is in the tables, and what is granted afterwards."""

    answers: Mapping[str, str]
    rows: Mapping[str, Sequence[str]]
    granted: Mapping[str, str]


@dataclass
class Template:
    """A server's directory with something in it, of which each try has a copy."""

    directory: Path
    known: set[str] = field(default_factory=set)
    number: int = 0

    def copy(self) -> Path:
        self.number += 1
        place = self.directory.with_name(f"try-{self.number % 4}")
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.directory, place)
        return place


@contextlib.asynccontextmanager
async def opened(
    directory: Path, clock: FakeClock, url: str | None = None
) -> AsyncIterator[tuple[ServerServices, Stepping]]:
    """Open the rooms of a server in a directory, without sockets."""
    entropy = OwnEntropy()
    settings = Settings(data=str(directory), host="localhost")
    passphrase = Passphrase(directory / "ca")
    hierarchy: Hierarchy
    if (directory / "ca" / "root.pem").exists():
        hierarchy = ca_directory.load(directory / "ca", passphrase)
    else:
        hierarchy = ca_directory.create(directory / "ca", "Test", now=clock.now(), entropy=entropy)
    real = await open_database(url or f"sqlite:///{directory}/x.db", clock)
    stepping = Stepping(real)
    database: Any = stepping
    bus = LocalBus(real)
    roots = Generations(directory, hierarchy.generations[0], passphrase, clock, entropy)
    rollovers = Rollovers(hierarchy, roots, database, clock)
    rooms = await open_rooms(settings, rollovers, database, bus, clock, entropy, None)
    rooms.subscribe(bus)
    try:
        yield rooms, stepping
    finally:
        await rooms.settled()
        await rooms.stop()
        await bus.stop()
        await rooms.broker.stop()
        await real.close()


async def answered(rooms: ServerServices, operation: Operation) -> str:
    try:
        await operation(rooms)
    except BirthmarkError as error:
        return f"{type(error).__name__}"
    return "done"


async def _as(name: str, operation: Operation, rooms: ServerServices) -> str:
    token = _doing.set(name)
    try:
        return await answered(rooms, operation)
    finally:
        _doing.reset(token)


async def came_of(
    template: Template,
    order: Sequence[tuple[str, Operation]],
    probes: Mapping[str, Operation],
    clock: FakeClock,
    at: int = -1,
) -> tuple[Came, int]:
    """Do operations one after the other; with `at` the second is done at that call of the first.

    Return what came of it, and how many calls the first made.
    """
    directory = template.copy()
    answers: dict[str, str] = {}
    async with opened(directory, clock) as (rooms, stepping):
        first, second = order[0], order[1] if len(order) > 1 else None
        stepping.whose, stepping.at = first[0], at

        async def do_second() -> None:
            assert second is not None
            answers[second[0]] = await _as(second[0], second[1], rooms)

        waiting: list[asyncio.Task[None]] = []

        async def between() -> None:
            waiting.append(asyncio.create_task(do_second()))
            await asyncio.wait(waiting, timeout=_TURN_S)  # it may wait for a turn that the first one has

        stepping.between = between
        answers[first[0]] = await _as(first[0], first[1], rooms)
        calls = stepping.calls
        stepping.whose = ""
        if second is not None and not waiting:
            await do_second()
        await asyncio.gather(*waiting)
        assert await CounterValues(stepping, clock).prove() == [], order
        granted = {name: await _as("probe", probe, rooms) for name, probe in probes.items()}
    return Came(answers, rows_in(directory / "x.db", template.known), granted), calls


def rows_in(file: Path, known: set[str]) -> dict[str, list[str]]:
    """Return every row as text; what is random of it, and was not there before, is one word."""
    found: dict[str, list[str]] = {}
    with closing(sqlite3.connect(file)) as there:
        there.row_factory = sqlite3.Row
        tables = [row[0] for row in there.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            if table in _LEFT_OUT | _PROVEN:
                continue
            rows = [
                " ".join(f"{name}={_plain(row[name], known)}" for name in row.keys() if name != "etag")  # noqa: SIM118 - a Row
                for row in there.execute(f"SELECT * FROM {table}")
            ]
            found[table] = sorted(rows)
        found["audit"] = sorted(f"{a} {b}" for a, b in there.execute("SELECT action, subject FROM audit"))
    return found


def values_in(file: Path) -> set[str]:
    """Return what is known before."""
    with closing(sqlite3.connect(file)) as there:
        tables = [row[0] for row in there.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {_text(value) for table in tables for row in there.execute(f"SELECT * FROM {table}") for value in row}


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _plain(value: object, known: set[str]) -> str:
    text = _text(value)
    if text in known:
        return text
    if isinstance(value, bytes):
        try:
            text = json.dumps(json.loads(value))
        except ValueError:
            text = f"*{len(value) > _MUCH}"
    return _RANDOM.sub("*", text)
