"""Rule engine: reads logged messages, evaluates the rules, and delivers the results.

One worker serves all rules. The stream offset is written in the commit that queues undelivered messages. After a crash,
the engine resumes there, so each rule receives each message at least once and queues no delivery twice. Deliveries that
wait for no external system run before the commit; all others are queued.

Messages beyond the share of a publisher or rule are written to a second stream in the same commit, and evaluated from
there: see `shares`.
"""

import asyncio
import contextlib
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Generic, Protocol, TypeVar

from birthmark.broker.database_stream import SqlStream
from birthmark.broker.rules.stream_partitions_and_positions import BEGINNING, Positions, key_of
from birthmark.clock_and_entropy import Clock
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.message_routing.delivery_model import Delivery, Sink, is_final
from birthmark.message_routing.failed_delivery_queue import Queue
from birthmark.message_routing.rule_time_shares import (
    DeferredMessage,
    RoutedMessage,
    RulePair,
    TimeShares,
    in_turns,
    spent,
)
from birthmark.store import Changes, Database, to_micros
from birthmark.supervised_tasks import Leads, always, cancel_and_wait, note, start_supervised

log = logging.getLogger(__name__)

PAGE = 512
_HELD_PAGE = 64
_HELD_TOGETHER = 8
"""Maximum messages of a publisher per segment: a reader holds several segments in memory."""
_MOST_LOOKED_AT = 32
"""Maximum pages of deferred messages that are scanned at start for their publishers."""
GROUP = "rules"
_TURN_S = 0.005  # time slice of rules before others get a turn
_MADE_BYTES = 4 * 1024 * 1024
"""Maximum output before delivery: one message may cause a thousand deliveries of its size."""
_WAIT_S = 1.0
_TRIM_EVERY_S = 30.0
KEEP_READ = timedelta(minutes=5)
"""Retention of messages that every rule has processed."""
KEEP_UNREAD = timedelta(days=1)
KEEP_BYTES = 1024 * 1024 * 1024
"""Retention of messages that not every rule has processed, by age and size."""
_MICROS = 1_000_000
T = TypeVar("T", bound=RoutedMessage)
A_contra = TypeVar("A_contra", bound=RoutedMessage, contravariant=True)


class RoutingRule(Protocol[A_contra]):
    """A rule that decides on messages."""

    @property
    def name(self) -> str:
        """The rule's name, unique among all rules."""
        ...

    async def decide(self, message: A_contra) -> Sequence[Delivery]:
        """Return the deliveries of a message. Raise a `BirthmarkError` if the message cannot be evaluated."""
        ...


Find = Callable[[T], Iterable[RoutingRule[T]]]
"""Returns the rules that match a message."""
Failed = Callable[[Delivery, BirthmarkError], Awaitable[None]]
Refused = Callable[[RoutingRule[T], T, BirthmarkError], None]


def _ignore_outcome(rule: RoutingRule[T], message: T, error: BirthmarkError) -> None:
    del rule, message, error


class RuleEngine(Generic[T]):
    """Rule engine on a stream. `leads` returns whether this worker runs it.

    On a stream with other readers, `group` is the name of the engine's offset, and the engine does not trim.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        stream: SqlStream[T],
        *,
        queue: Queue,
        sinks: Mapping[str, Sink],
        find: Find[T],
        held: SqlStream[DeferredMessage[T]] | None = None,
        group: str = GROUP,
        trims: bool = True,
        leads: Leads = always,
        failed: Failed,
        refused: Refused[T] | None = None,
        gone: Counter[str] | None = None,
        while_: Callable[[], Changes] = Changes,
    ) -> None:
        """Create an engine; `while_` returns a guard for all writes of processed messages.

        `gone` counts sent messages by partition.
        """
        self._database = database
        self._clock = clock
        self._stream = stream
        self._queue = queue
        self._sinks = sinks
        self._find = find
        self._held = held
        """Stream of deferred messages; the engine is its only writer."""
        self._held_after: Positions = BEGINNING
        self._held_read_at = 0
        self._has_held = asyncio.Event()
        self.shares = TimeShares(clock)
        self._group = group
        self._trims = trims
        self._after: Positions | None = None
        self._read_at = 0  # arrival of the last one read
        self._trimmed_at: float | None = None
        self._leads = leads
        self._refused: Refused[T] = refused or _ignore_outcome
        self._while = while_
        self._failed = failed
        self.seen: Counter[str] = Counter()
        self.matched: Counter[str] = Counter()
        self.gone: Counter[str] = Counter() if gone is None else gone
        """Counters by rule since this process started: messages evaluated, messages matched, deliveries sent."""
        self.missed = 0
        """Number of times messages were trimmed before the rules processed them."""
        self.is_behind = False

    @property
    def lag_s(self) -> float:
        """Age of the last message that every rule has processed, while more are waiting; deferred ones do not count."""
        return max(0.0, (self._clock.micros() - self._read_at) / _MICROS) if self.is_behind and self._read_at else 0.0

    async def keep_running(self) -> None:
        """Run the engine until the server stops."""
        behind = start_supervised("rules that used up their share", self._keep_deciding_held)
        try:
            await self._keep_reading()
        finally:
            await cancel_and_wait(behind)

    async def _keep_reading(self) -> None:
        while True:
            if not await self._leads():
                self._after, self.is_behind = None, False
                await asyncio.sleep(_WAIT_S)
                continue
            if not await self.step():
                assert self._after is not None  # noqa: S101 - already read
                await self._stream.tail(self._after, _WAIT_S)
            if self._trims:
                with contextlib.suppress(BirthmarkError):
                    await self._trim()

    async def step(self) -> bool:
        """Process the next page; return whether more may follow at once."""
        if self._after is None:
            await self._load_deferred()
            self._after = await self._stream.position(self._group) or BEGINNING
        page = await self._stream.read(self._after, PAGE)
        if page.is_gap:
            self.missed += 1
            log.warning("rules.missed", extra={"stream": self._stream.name})
        if page.items:
            self.is_behind = True
            await self._page(page.items, self._after, page.next)
            self._read_at = page.items[-1].enqueued_micros
        elif page.next != self._after:
            await self._database.commit(self._while().merge(self._stream.position_changes(self._group, page.next)))
        self._after = page.next
        self.is_behind = not page.is_end
        return not page.is_end

    async def _page(self, messages: Sequence[T], after: Positions, reached: Positions) -> None:
        loop = asyncio.get_running_loop()
        began, size = loop.time(), 0
        made: list[tuple[str, Delivery]] = []
        held: list[DeferredMessage[T]] = []
        for place, message in enumerate(messages):
            for rule in self._find(message):
                pair = RulePair(message.publisher, rule.name)
                if self._held is not None and self.shares.is_used_up(pair):
                    held.append(DeferredMessage(rule.name, message))
                    self.shares.waiting[pair] += 1
                    continue
                letters = await self._decided(rule, message)
                for number, letter in enumerate(letters):
                    made.append((f"{sum(after):016x}-{place:04x}-{rule.name}-{number}", letter))
                    size += letter.size
                if loop.time() - began >= _TURN_S:
                    await asyncio.sleep(0)
                    began = loop.time()
                if size > _MADE_BYTES:  # after a crash the page is queued again under the same ids
                    await self._deliver_or_queue(made, self._while())
                    made, size = [], 0
        changes = self._while().merge(self._stream.position_changes(self._group, reached))
        try:
            await self._deliver_or_queue(made, changes.merge(self._deferral_changes(held)))
        except BaseException:
            self.shares.forget([one.pair for one in held])
            raise
        self._has_held.set()

    def _deferral_changes(self, held: Sequence[DeferredMessage[T]]) -> Changes:
        """Return changes that write messages to the deferred stream."""
        changes, by_publisher = Changes(), defaultdict[str, list[DeferredMessage[T]]](list)
        for one in held:
            by_publisher[one.publisher].append(one)
        for publisher, some in by_publisher.items():
            assert self._held is not None  # noqa: S101 - otherwise no backlog
            for begin in range(0, len(some), _HELD_TOGETHER):
                changes.merge(self._held.append_changes(key_of(publisher), some[begin : begin + _HELD_TOGETHER]))
        return changes

    async def _load_deferred(self) -> None:
        """Load the publishers of deferred messages at start, so that their next messages are deferred as well."""
        if self._held is None:
            return
        self.shares = TimeShares(self._clock)
        after = self._held_after = await self._held.position(self._group) or BEGINNING
        for _ in range(_MOST_LOOKED_AT):
            page = await self._held.read(after, PAGE)
            self.shares.waiting.update(one.pair for one in page.items)
            if page.is_end:
                return
            after = page.next

    async def _keep_deciding_held(self) -> None:
        while True:
            self._has_held.clear()
            while self._held is not None and self._after is not None and await self.held_step():
                pass
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WAIT_S):
                    await self._has_held.wait()

    async def held_step(self) -> bool:
        """Evaluate the next deferred messages; return whether there were any.

        After each decision, the engine yields the processor for as long as the decision took.
        """
        assert self._held is not None  # noqa: S101 - caller checked it
        after, made = self._held_after, list[tuple[str, Delivery]]()
        page = await self._held.read(after, _HELD_PAGE)
        for place, one in in_turns(page.items):
            for rule in self._find(one.message):
                if rule.name != one.rule:
                    continue
                began = spent()
                letters = await self._decided(rule, one.message)
                made += [
                    (f"{sum(after):016x}-h{place:04x}-{rule.name}-{number}", letter)
                    for number, letter in enumerate(letters)
                ]
                await asyncio.sleep(spent() - began)
            if sum(letter.size for _, letter in made) > _MADE_BYTES:
                await self._deliver_or_queue(made, self._while())
                made = []
        if page.items:
            await self._deliver_or_queue(made, self._while().merge(self._held.position_changes(self._group, page.next)))
            self.shares.forget([one.pair for one in page.items])
            self._held_after, self._held_read_at = page.next, page.items[-1].enqueued_micros
        return bool(page.items)

    async def _deliver_or_queue(self, deliveries: Sequence[tuple[str, Delivery]], changes: Changes) -> None:
        """Deliver messages, and queue undelivered ones with this commit."""
        problems = await self._deliver_quick(deliveries)
        is_queued = False
        for id_, letter in deliveries:
            problem = problems.get(id_, ...)
            if problem is None:
                self.gone[letter.lane] += 1
                continue
            why = problem if isinstance(problem, BirthmarkError) else None
            if why is not None and is_final(why):
                await self._failed(letter, why)
            is_queued |= self._queue.add(changes, id_, letter, why)
        await self._database.commit(changes)
        if is_queued:
            self._queue.wake()

    async def _decided(self, rule: RoutingRule[T], message: T) -> Sequence[Delivery]:
        self.seen[rule.name] += 1
        began = spent()
        try:
            letters = await rule.decide(message)
        except BirthmarkError as error:
            self._refused(rule, message, error)
            return ()
        except Exception as error:  # noqa: BLE001 - our bug costs one message of one rule, and is logged
            note(f"the rule {rule.name}", error)
            return ()
        finally:
            self.shares.count(RulePair(message.publisher, rule.name), spent() - began)
        if letters:
            self.matched[rule.name] += 1
        return letters

    async def _deliver_quick(self, deliveries: Sequence[tuple[str, Delivery]]) -> Mapping[str, BirthmarkError | None]:
        """Deliver messages that wait for no external system; return their results."""
        by_kind: defaultdict[str, list[tuple[str, Delivery]]] = defaultdict(list)
        for id_, letter in deliveries:
            if self._sinks[letter.kind].is_quick:
                by_kind[letter.kind].append((id_, letter))
        found: dict[str, BirthmarkError | None] = {}
        for kind, some in by_kind.items():
            try:
                results = await self._sinks[kind].carry([letter for _, letter in some])
            except UnavailableError:  # database unavailable: the page is read again
                raise
            except Exception as error:  # noqa: BLE001 - our bug: these messages wait, separately per partition
                note(f"deliveries of type {kind}", error)
                continue
            found |= {id_: problem for (id_, _), problem in zip(some, results, strict=True)}
        return found

    async def send(self, id_: str, delivery: Delivery) -> None:
        """Send a message that no source message caused directly, such as a failure report; queue it on failure."""
        problem = (await self._deliver_quick([(id_, delivery)])).get(id_, ...)
        if problem is None:
            self.gone[delivery.lane] += 1
            return
        changes = Changes()
        if self._queue.add(changes, id_, delivery, problem if isinstance(problem, BirthmarkError) else None):
            await self._database.commit(changes)
            self._queue.wake()

    async def _trim(self) -> None:
        now = self._clock.monotonic()
        if self._trimmed_at is not None and now - self._trimmed_at < _TRIM_EVERY_S:
            return
        self._trimmed_at = now
        at = self._clock.now()
        unread = to_micros(at - KEEP_UNREAD)
        read = min(self._read_at, to_micros(at - KEEP_READ))
        await self._stream.trim(max(unread, read), KEEP_BYTES)
        if self._held is not None:
            read = min(self._held_read_at, to_micros(at - KEEP_READ))
            await self._held.trim(max(unread, read), KEEP_BYTES)
