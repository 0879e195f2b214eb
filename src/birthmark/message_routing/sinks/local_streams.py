"""Local streams in place of cloud streams: with retention, read by consumer groups with their own offsets."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from birthmark.broker.keyed_lock import until_done
from birthmark.broker.ports import MessageStream
from birthmark.broker.rules.stream_partitions_and_positions import key_of
from birthmark.errors import BirthmarkError
from birthmark.message_routing.delivery_model import Delivery


class StreamRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One entry of a stream; `device_id` is its partition key."""

    device_id: str
    enqueued_micros: int
    body: bytes


Find = Callable[[str], Awaitable[MessageStream[StreamRecord]]]
"""Returns a stream by its name. Raise a `BirthmarkError` if it does not exist."""


class StreamSink:
    """Addresses have `stream`, its name, and `key`, the ordering key."""

    is_quick = True

    def __init__(self, find: Find, now: Callable[[], int]) -> None:
        """Create the sink; `now` returns the time in microseconds since 1970."""
        self._find = find
        self._now = now

    async def carry(self, deliveries: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """Deliver messages; implements `birthmark.message_routing.delivery_model.Carrier`."""
        results: list[BirthmarkError | None] = [None] * len(deliveries)
        waiting: list[tuple[int, asyncio.Future[None]]] = []
        for number, letter in enumerate(deliveries):
            try:
                stream = await self._find(letter.address["stream"])
            except BirthmarkError as error:
                results[number] = error
                continue
            key = str(letter.address.get("key", ""))
            safe, done = until_done()
            stream.append(key_of(key), [StreamRecord(key, self._now(), letter.body)], len(letter.body), done)
            waiting.append((number, safe))
        for number, safe in waiting:
            try:
                await safe
            except BirthmarkError as error:
                results[number] = error
        return results
