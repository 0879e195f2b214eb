"""Data streams that rules write to and consumer groups read from; they replace Amazon Kinesis."""

import asyncio
import contextlib
import re
from collections.abc import Sequence

from birthmark.awsiot.model import DataStream
from birthmark.awsiot.rules.topic_rule_evaluation import RulesFullError
from birthmark.awsiot.store import topic_rules_and_streams as store
from birthmark.broker.database_stream import SqlStream
from birthmark.clock_and_entropy import Clock
from birthmark.errors import BirthmarkError, ConflictError, InvalidRequestError, NotFoundError
from birthmark.message_routing.sinks.local_streams import StreamRecord
from birthmark.store import Changes, Database, to_micros
from birthmark.store.pagination import Page, page_of
from birthmark.supervised_tasks import Leads, always

_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}")
_TRIM_EVERY_S = 60.0
_SPACE = "aws-stream:"
KEEP_S = 24 * 3600
KEEP_BYTES = 1024 * 1024 * 1024
"""Retention of each stream by time and size."""


class UnknownStreamError(NotFoundError):
    """The stream does not exist."""

    code = "awsiot.unknown_stream"
    message = "Stream {stream} does not exist"
    fix = "Create the stream: `birthmark aws stream create {stream}`. List streams: `birthmark aws stream ls`"
    stream: str
    is_final: bool = True


class StreamExistsError(ConflictError):
    """A stream with this name exists already."""

    code = "awsiot.stream_exists"
    message = "Stream {stream} already exists"
    fix = "Use the existing stream, or choose another name. List streams: `birthmark aws stream ls`"
    stream: str


class StreamNameError(InvalidRequestError):
    """The stream name is not valid."""

    code = "awsiot.stream_name"
    message = "The stream name {stream} is not valid"
    fix = (
        "Use 1 to 128 characters: letters, digits, and _ . -, as in this command: `birthmark aws stream create "
        "readings`"
    )
    stream: str


class DataStreams:
    """The streams of the account."""

    def __init__(self, database: Database, clock: Clock, leads: Leads = always) -> None:
        self._database = database
        self._clock = clock
        self.leads = leads
        self._streams: dict[str, SqlStream[StreamRecord]] = {}

    async def get(self, name: str) -> DataStream:
        """Return a stream. Raise `UnknownStreamError`."""
        if (row := await self._database.one(store.GET_STREAM, name=name)) is None:
            raise UnknownStreamError(stream=name[:128])
        return store.STREAMS.of(row)

    async def find(self, name: str) -> SqlStream[StreamRecord]:
        """Return a stream to write to or read from. Raise `UnknownStreamError`."""
        await self.get(name)
        if (stream := self._streams.get(name)) is None:
            stream = self._streams[name] = SqlStream(_SPACE + name, StreamRecord, self._database, self._clock)
        return stream

    async def page(self, after: str, size: int) -> Page[DataStream]:
        """Return streams by name."""
        rows = await self._database.all(store.LIST_STREAMS, after=after, limit=size + 1)
        found = [store.STREAMS.of(row) for row in rows]
        return page_of(found, size, [one.name for one in found])

    async def create(self, name: str, *, actor: str) -> DataStream:
        """Create a stream. Raise `StreamNameError`, `StreamExistsError`, `RulesFullError`."""
        if _NAME.fullmatch(name) is None:
            raise StreamNameError(stream=name[:128])
        rows = await self._database.all(store.LIST_STREAMS, after="", limit=store.MAX_STREAMS)
        if len(rows) >= store.MAX_STREAMS:
            raise RulesFullError(count=store.MAX_STREAMS, what="streams")
        made = DataStream(name, self._clock.now())
        exists = StreamExistsError(stream=name)
        changes = Changes().run(store.ADD_STREAM, expect=1, otherwise=exists, **store.STREAMS.row(made))
        await self._database.commit(changes.audit(actor, "awsiot.stream_create", name))
        return made

    async def remove(self, name: str, *, actor: str) -> None:
        """Delete a stream with its content. Raise `UnknownStreamError`."""
        stream = await self.find(name)
        missing = UnknownStreamError(stream=name[:128])
        changes = Changes().run(store.REMOVE_STREAM, expect=1, otherwise=missing, name=name)
        await self._database.commit(changes.audit(actor, "awsiot.stream_remove", name))
        self._streams.pop(name, None)
        await stream.settled()
        await stream.trim(self._clock.micros() + 1, 0)

    async def names(self) -> Sequence[str]:
        """Return the names of all streams."""
        rows = await self._database.all(store.LIST_STREAMS, after="", limit=store.MAX_STREAMS)
        return [row["name"] for row in rows]

    async def trim(self) -> None:
        """Delete messages beyond the retention time, and the oldest beyond the size limit."""
        before = to_micros(self._clock.now()) - KEEP_S * 1_000_000
        for name in await self.names():
            await (await self.find(name)).trim(before, KEEP_BYTES)

    async def keep_trimmed(self) -> None:
        """Trim the streams every minute while this worker leads; never return."""
        while True:
            if await self.leads():
                with contextlib.suppress(BirthmarkError):
                    await self.trim()
            await asyncio.sleep(_TRIM_EVERY_S)
