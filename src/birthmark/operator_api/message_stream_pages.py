"""Stream pages from a position, a time, or a consumer group's position."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from birthmark.broker.ports import MessageStream
from birthmark.broker.rules.stream_partitions_and_positions import (
    BEGINNING,
    Positions,
    parse_positions,
    render_positions,
)
from birthmark.net.fair_scheduler import MAX_ANSWER_BYTES, yield_turn
from birthmark.operator_api.api_router import SIGN_OF_LIFE_S
from birthmark.operator_api.name_validation import OperatorRequestError, parse_name
from birthmark.store import to_micros

PAGE = 250
PAUSE_S = 0.05
"""Interval between polls, so that messages of that time are read together."""
T = TypeVar("T")


class StreamQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Start of reading: a position, a time or a group's position; default: new messages. `follow` continues."""

    device: str | None = None
    after: str | None = None
    since: datetime | None = None
    group: str | None = None
    follow: bool = False


class StreamPosition(msgspec.Struct):
    """Position of a consumer group: the `next` of a page."""

    after: str


async def beginning(stream: MessageStream[T], query: StreamQuery) -> Positions:
    """Return the start positions; a new group starts at `since`, otherwise at the beginning."""
    if query.after is not None:
        return parse_positions(query.after)
    if query.group is not None:
        if (known := await stream.position(parse_name(query.group))) is not None:
            return known
        if query.since is None:
            return BEGINNING
    if query.since is None:
        return await stream.end()
    if query.since.tzinfo is None:
        raise OperatorRequestError(detail="`since` has no time zone")
    return await stream.find(max(0, to_micros(query.since)))


async def pages(
    stream: MessageStream[T], positions: Positions, query: StreamQuery, view: Callable[[T], Mapping[str, Any]]
) -> AsyncIterator[Mapping[str, Any]]:
    """Yield pages as messages arrive; empty pages as keep-alive messages."""
    loop = asyncio.get_running_loop()
    said_at = -SIGN_OF_LIFE_S
    while True:
        page = await stream.read(positions, PAGE, query.device, most_bytes=MAX_ANSWER_BYTES)
        positions = page.next
        is_time = loop.time() >= said_at + SIGN_OF_LIFE_S
        if page.items or page.is_gap or is_time or (page.is_end and not query.follow):
            views = []
            for message in page.items:
                views.append(view(message))
                await yield_turn()
            yield {"items": views, "next": render_positions(positions), "gap": page.is_gap}
            said_at = loop.time()
        if page.is_end:
            if not query.follow:
                return
            await asyncio.sleep(PAUSE_S)
            await stream.tail(positions, max(0.0, said_at + SIGN_OF_LIFE_S - loop.time()))
