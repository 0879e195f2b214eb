"""Write-ahead log of messages that rules match: a stream in the database, durable before the acknowledgement.

A message without a matching rule costs one lookup. All messages of a loop tick are one durable write, together with
those of other publishers. Faster senders wait.
"""

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from birthmark.broker.database_stream import MAX_BURST, SqlStream
from birthmark.broker.model import Done
from birthmark.broker.publisher_backpressure import UNWRITTEN_BYTES, InFlightBudget
from birthmark.broker.rules.filter_shape_index import Shapes, shape_of
from birthmark.broker.rules.stream_partitions_and_positions import key_of


class LoggedMessage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message of the stream that an engine reads.

    `device_id` is the publishing client, empty for messages of the cloud itself or an operator. `trail` are the rules
    whose republishing caused it, oldest first; `only` is the single rule that it is for (basic ingest).
    """

    device_id: str
    enqueued_micros: int
    topic: str
    payload: bytes
    qos: int = 0
    is_retained: bool = False
    properties: tuple[Any, ...] = ()
    """`birthmark.mqtt.properties.Properties` with numbers as names."""
    principal: str = ""
    trail: tuple[str, ...] = ()
    only: str = ""

    @property
    def publisher(self) -> str:
        """Publisher whose share of the rules' time it uses: its principal, over all its client ids."""
        return self.principal or self.device_id

    @property
    def size(self) -> int:
        """Approximate size in bytes."""
        return len(self.payload) + len(self.topic) + 64


_MAX_KNOWN = 16_384
_NOBODY: tuple[str, ...] = ()


class TopicSubscribers:
    """Rules by matching topic."""

    def __init__(self) -> None:
        self._by_filter: Mapping[str, tuple[str, ...]] = {}
        self._shapes = Shapes(hash_matches_parent=False)
        self._known: dict[str, tuple[str, ...]] = {}
        self.any = False
        """Whether any rule has a topic filter."""

    def set_rules(self, rules: Iterable[tuple[str, str]]) -> None:
        """Replace all rules: filter and name of each."""
        by_filter: dict[str, tuple[str, ...]] = {}
        for topic_filter, name in rules:
            by_filter[topic_filter] = (*by_filter.get(topic_filter, ()), name)
        self._by_filter = by_filter
        self._shapes.become({shape_of(one) for one in by_filter})
        self._known = {}
        self.any = bool(by_filter)

    def by(self, topic: str) -> tuple[str, ...]:
        """Return the names of the rules that match a topic, in order."""
        if (known := self._known.get(topic)) is not None:
            return known
        found = [name for one in self._shapes.candidates(topic) for name in self._by_filter.get(one, ())]
        if len(self._known) >= _MAX_KNOWN:
            self._known = {}
        made = self._known[topic] = tuple(sorted(found)) if found else _NOBODY
        return made


class WriteAheadLog:
    """Records messages for the engine."""

    def __init__(self, stream: SqlStream[LoggedMessage]) -> None:
        self._stream = stream
        self._unwritten = InFlightBudget(UNWRITTEN_BYTES)
        self.wanted = TopicSubscribers()

    def note(self, owner: str, messages: Sequence[LoggedMessage], done: Done) -> Awaitable[None] | None:
        """Log messages with a matching rule; `done` is called when all are durable, or with the error.

        The returned awaitable ends when this owner may send more.
        """
        key, parts = key_of(owner), [messages[at : at + MAX_BURST] for at in range(0, len(messages), MAX_BURST)]
        left = len(parts)
        problem: BaseException | None = None
        size = sum([one.size for one in messages])
        self._unwritten.add(owner, size)

        def written(why: BaseException | None) -> None:
            nonlocal left, problem
            left, problem = left - 1, problem or why
            if not left:
                self._unwritten.remove(owner, size)
                done(problem)

        for part in parts:
            self._stream.append(key, part, sum([one.size for one in part]), written)
        return self._unwritten.wait_for_space(owner)
