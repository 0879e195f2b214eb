"""Telemetry: a stream for each hub.

A message is acknowledged only when it is durable. If the write fails, no message is acknowledged and the connections
are closed, so that the devices send again.
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta

from birthmark.broker.database_stream import SqlStream
from birthmark.broker.keyed_lock import until_done
from birthmark.broker.ports import MessageStream
from birthmark.broker.publisher_backpressure import UNWRITTEN_BYTES, InFlightBudget
from birthmark.clock_and_entropy import Clock, ClockStability
from birthmark.errors import BirthmarkError
from birthmark.iothub.model import Hub, TelemetryMessage, space_of
from birthmark.iothub.service.hubs_and_authorization import Hubs, UnknownHubError
from birthmark.store import Database, to_micros
from birthmark.supervised_tasks import Leads, always

log = logging.getLogger(__name__)

KEEP_S = 24 * 3600
KEEP_BYTES = 4 * 1024 * 1024 * 1024
TRIM_EVERY_S = 60.0
_LOOK_EVERY_S = 1.0  # of the size: a disk takes gigabytes in a minute
_MORE = 16  # part of the limit that may arrive between trims


class Telemetry:
    """Telemetry of all hubs; each hub keeps messages for `keep_s` and up to `keep_bytes`."""

    def __init__(
        self,
        hubs: Hubs,
        database: Database,
        clock: Clock,
        *,
        keep_s: int = KEEP_S,
        keep_bytes: int = KEEP_BYTES,
        leads: Leads = always,
    ) -> None:
        """`leads` returns whether this worker trims for all: two at once would both delete the excess."""
        self._hubs = hubs
        self._database = database
        self._clock = clock
        self._keep = timedelta(seconds=keep_s)
        self._keep_bytes = keep_bytes
        self._streams: dict[str, SqlStream[TelemetryMessage]] = {}
        self._unwritten = InFlightBudget(UNWRITTEN_BYTES)
        self._trimming = asyncio.Lock()
        self._steadiness = ClockStability(clock)
        self.leads = leads

    @property
    def keep_days(self) -> int:
        """Days for which messages are retained, at least 1."""
        return max(1, self._keep.days)

    def stream(self, hub: Hub) -> MessageStream[TelemetryMessage]:
        """Return the hub's stream. Raise `UnknownHubError`: a late message does not go to a later hub of that name."""
        return self.stream_of(hub)

    def stream_of(self, hub: Hub) -> SqlStream[TelemetryMessage]:
        """Return the same stream as `stream`, for callers that commit offsets with other changes."""
        self._hubs.check_is_there(hub)
        return self._stream(hub.name)

    async def write(self, hub: Hub, key: int, messages: Sequence[TelemetryMessage], size: int) -> None:
        """Write messages of one device and wait until they are durable. Raise `UnavailableError`.

        Unwritten messages per device are bounded, over any number of requests, as they are over MQTT.
        """
        owner = f"{hub.name}/{key}"
        while (no_room := self._unwritten.wait_for_space(owner)) is not None:
            await no_room
        stream, (written, done) = self.stream(hub), until_done()
        self._unwritten.add(owner, size)
        try:
            stream.append(key, messages, size, done)
            await written
        finally:
            self._unwritten.remove(owner, size)

    @contextlib.asynccontextmanager
    async def drain(self, hub: Hub) -> AsyncIterator[None]:
        """Reject new telemetry of a hub and write accepted telemetry; a later hub of that name starts empty."""
        stream = self._stream(hub.name)
        stream.close(UnknownHubError(host=hub.host))
        try:
            await stream.settled()
            async with self._trimming:  # its progress must not reach the next hub's record
                yield
        finally:
            self._streams.pop(hub.name, None)

    def _stream(self, name: str) -> SqlStream[TelemetryMessage]:
        if (stream := self._streams.get(name)) is None:
            stream = self._streams[name] = SqlStream(space_of(name), TelemetryMessage, self._database, self._clock)
        return stream

    def streams(self) -> Mapping[str, SqlStream[TelemetryMessage]]:
        """Return the telemetry streams in use, by hub name."""
        return self._streams

    async def wait_until_written(self) -> None:
        """Wait until all accepted telemetry is durable or refused."""
        for stream in tuple(self._streams.values()):
            await stream.settled()

    async def trim(self) -> None:
        """Trim telemetry by age and size; only measure it where another worker leads."""
        is_steady, leads = self._steadiness.is_steady(), await self.leads()
        # A clock that was just set must not make messages too old.
        before = to_micros(self._clock.now() - self._keep) if is_steady and leads else 0
        keep_bytes = self._keep_bytes if leads else sys.maxsize
        for hub in self._hubs.all():
            async with self._trimming:
                if hub in self._hubs.all():
                    await self.stream(hub).trim(before, keep_bytes)

    async def run_trim_loop(self) -> None:
        """Trim every minute, and after much new data; an unavailable database is retried at the next run."""
        while True:
            try:
                await self.trim()
            except BirthmarkError as error:
                log.warning("telemetry.not_trimmed", extra={"reason": error.explain_cause()})
                await asyncio.sleep(TRIM_EVERY_S)
                continue
            for _ in range(int(TRIM_EVERY_S / _LOOK_EVERY_S)):
                await asyncio.sleep(_LOOK_EVERY_S)
                if self._is_too_much():
                    break

    def _is_too_much(self) -> bool:
        """Return whether this process wrote more than the retained size."""
        most = self._keep_bytes + self._keep_bytes // _MORE
        return any(stream.kept_bytes > most for stream in self._streams.values())
