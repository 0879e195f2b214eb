"""What rules want is noted durably, before whoever published it hears that it is safe; what none wants costs a look-up.

Everything of a loop tick is one durable write, together with what other publishers sent meanwhile. Who sends faster
than that waits.
"""

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from birthmark.broker.in_flight import UNWRITTEN_BYTES, InFlightBudget
from birthmark.broker.model import Done
from birthmark.broker.rules.filter_index import Shapes, shape_of
from birthmark.broker.rules.partitions import key_of
from birthmark.broker.stream import MAX_BURST, SqlStream


class LoggedMessage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One message of the stream that an engine reads.

    `device_id` is the client that published it, and empty for what the cloud itself or an operator says. `trail` are
    the rules whose republishing led to it, oldest first; `only` is the one rule that it is for (basic ingest).
    """

    device_id: str
    enqueued_micros: int
    topic: str
    payload: bytes
    qos: int = 0
    is_retained: bool = False
    properties: tuple[Any, ...] = ()
    """As `birthmark.mqtt.properties.Properties`, with numbers for names."""
    principal: str = ""
    trail: tuple[str, ...] = ()
    only: str = ""

    @property
    def publisher(self) -> str:
        """Whose share of the rules' time it uses: its principal's, under however many client ids that publishes."""
        return self.principal or self.device_id

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return len(self.payload) + len(self.topic) + 64


_MAX_KNOWN = 16_384
_NOBODY: tuple[str, ...] = ()


class TopicSubscribers:
    """Which rules want the messages of a topic."""

    def __init__(self) -> None:
        self._by_filter: Mapping[str, tuple[str, ...]] = {}
        self._shapes = Shapes(hash_matches_parent=False)
        self._known: dict[str, tuple[str, ...]] = {}
        self.any = False
        """Whether there are rules with a filter at all."""

    def become(self, rules: Iterable[tuple[str, str]]) -> None:
        """Take these rules for all there are: filter and name of each."""
        by_filter: dict[str, tuple[str, ...]] = {}
        for topic_filter, name in rules:
            by_filter[topic_filter] = (*by_filter.get(topic_filter, ()), name)
        self._by_filter = by_filter
        self._shapes.become({shape_of(one) for one in by_filter})
        self._known = {}
        self.any = bool(by_filter)

    def by(self, topic: str) -> tuple[str, ...]:
        """Return the names of the rules that want a topic, in order."""
        if (known := self._known.get(topic)) is not None:
            return known
        found = [name for one in self._shapes.candidates(topic) for name in self._by_filter.get(one, ())]
        if len(self._known) >= _MAX_KNOWN:
            self._known = {}
        made = self._known[topic] = tuple(sorted(found)) if found else _NOBODY
        return made


class WriteAheadLog:
    """Notes messages for the engine."""

    def __init__(self, stream: SqlStream[LoggedMessage]) -> None:
        self._stream = stream
        self._unwritten = InFlightBudget(UNWRITTEN_BYTES)
        self.wanted = TopicSubscribers()

    def note(self, owner: str, messages: Sequence[LoggedMessage], done: Done) -> Awaitable[None] | None:
        """Note what is wanted; `done` is called when all of it is durable, or with why it is not.

        What is returned ends when this owner may send more.
        """
        key, parts = key_of(owner), [messages[at : at + MAX_BURST] for at in range(0, len(messages), MAX_BURST)]
        left = len(parts)
        problem: BaseException | None = None
        size = sum([one.size for one in messages])
        self._unwritten.begun(owner, size)

        def written(why: BaseException | None) -> None:
            nonlocal left, problem
            left, problem = left - 1, problem or why
            if not left:
                self._unwritten.ended(owner, size)
                done(problem)

        for part in parts:
            self._stream.append(key, part, sum([one.size for one in part]), written)
        return self._unwritten.full(owner)
