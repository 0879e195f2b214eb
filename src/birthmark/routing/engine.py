"""The engine: reads what was noted, lets each rule decide, and sends what they made of it.

One worker does it for all. How far it has read is written in the commit that queues what did not go out at once: after
a crash it begins there, so that each rule sees each message at least once, and queues nothing twice. What waits for
nobody outside goes out before that; everything else is the queue's.
"""

import asyncio
import contextlib
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Generic, Protocol, TypeVar

from birthmark.background import note
from birthmark.broker.rules.partitions import BEGINNING, Positions
from birthmark.broker.stream import FromDevice, SqlStream
from birthmark.clock import Clock
from birthmark.errors import BirthmarkError
from birthmark.routing.letters import Carrier, Letter, is_final
from birthmark.routing.queue import Queue
from birthmark.store import Changes, Database, to_micros

log = logging.getLogger(__name__)

PAGE = 512
GROUP = "rules"
_TURN_S = 0.005  # so long rules decide before others have their turn
_MADE_BYTES = 4 * 1024 * 1024
"""So much is made of messages before it goes out: one may lead to a thousand letters, each as large as it is."""
_WAIT_S = 1.0
_TRIM_EVERY_S = 30.0
KEEP_READ = timedelta(minutes=5)
"""What every rule has seen is kept so long."""
KEEP_UNREAD = timedelta(days=1)
KEEP_BYTES = 1024 * 1024 * 1024
"""What no rule has seen is kept so long, and so much of it."""
_MICROS = 1_000_000
T = TypeVar("T", bound=FromDevice)
A_contra = TypeVar("A_contra", bound=FromDevice, contravariant=True)


class Rule(Protocol[A_contra]):
    """What decides on a message."""

    @property
    def name(self) -> str:
        """Its name, unique among all."""
        ...

    async def decide(self, message: A_contra) -> Sequence[Letter]:
        """Return what goes out. Raise a `BirthmarkError` where the message cannot be decided on."""
        ...


Find = Callable[[T], Iterable[Rule[T]]]
"""Which rules want a message."""
Failed = Callable[[Letter, BirthmarkError], Awaitable[None]]
Refused = Callable[[Rule[T], T, BirthmarkError], None]


async def _always() -> bool:
    return True


def _nobody(rule: Rule[T], message: T, error: BirthmarkError) -> None:
    del rule, message, error


class Engine(Generic[T]):
    """See the module. `leads` says whether this worker is the one.

    Of a stream that others read, too, `group` is the name of its place in it, and it does not trim.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        stream: SqlStream[T],
        *,
        queue: Queue,
        carriers: Mapping[str, Carrier],
        find: Find[T],
        group: str = GROUP,
        trims: bool = True,
    ) -> None:
        self._database = database
        self._clock = clock
        self._stream = stream
        self._queue = queue
        self._carriers = carriers
        self._find = find
        self._group = group
        self._trims = trims
        self._after: Positions | None = None
        self._read_at = 0  # when what was read last had come
        self._trimmed_at: float | None = None
        self.leads: Callable[[], Awaitable[bool]] = _always
        self.refused: Refused[T] = _nobody
        self.while_: Callable[[], Changes] = Changes
        """What has to hold for whatever is written of what was read."""
        self.failed: Failed = queue.failed
        self.seen: Counter[str] = Counter()
        self.matched: Counter[str] = Counter()
        self.gone: Counter[str] = Counter()
        """By rule, since this process began: messages it was asked about, those it wanted, letters that went out."""
        self.missed = 0
        """How often messages were trimmed before the rules saw them."""
        self.is_behind = False

    @property
    def lag_s(self) -> float:
        """How old the newest message is that every rule has seen, while there are others."""
        return max(0.0, (self._clock.micros() - self._read_at) / _MICROS) if self.is_behind and self._read_at else 0.0

    async def keep_running(self) -> None:
        """Do what there is to do, as long as the server runs."""
        while True:
            if not await self.leads():
                self._after, self.is_behind = None, False
                await asyncio.sleep(_WAIT_S)
                continue
            if not await self.step():
                assert self._after is not None  # noqa: S101 - a step read it
                await self._stream.tail(self._after, _WAIT_S)
            if self._trims:
                with contextlib.suppress(BirthmarkError):
                    await self._trim()

    async def step(self) -> bool:
        """Do what the next page asks for; say whether more may follow at once."""
        if self._after is None:
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
            await self._database.commit(self.while_().merge(self._stream.noting(self._group, page.next)))
        self._after = page.next
        self.is_behind = not page.is_end
        return not page.is_end

    async def _page(self, messages: Sequence[T], after: Positions, reached: Positions) -> None:
        loop = asyncio.get_running_loop()
        began, size = loop.time(), 0
        made: list[tuple[str, Letter]] = []
        for place, message in enumerate(messages):
            for rule in self._find(message):
                letters = await self._decided(rule, message)
                for number, letter in enumerate(letters):
                    made.append((f"{sum(after):016x}-{place:04x}-{rule.name}-{number}", letter))
                    size += letter.size
                if loop.time() - began >= _TURN_S:
                    await asyncio.sleep(0)
                    began = loop.time()
                if size > _MADE_BYTES:  # read again after a crash, the page queues it under the same ids
                    await self._let_go(made, self.while_())
                    made, size = [], 0
        await self._let_go(made, self.while_().merge(self._stream.noting(self._group, reached)))

    async def _let_go(self, made: Sequence[tuple[str, Letter]], changes: Changes) -> None:
        """Carry letters, and queue with this commit what did not go out."""
        problems = await self._gone(made)
        is_queued = False
        for id_, letter in made:
            problem = problems.get(id_, ...)
            if problem is None:
                self.gone[letter.lane] += 1
                continue
            why = problem if isinstance(problem, BirthmarkError) else None
            if why is not None and is_final(why):
                await self.failed(letter, why)
            is_queued |= self._queue.add(changes, id_, letter, why)
        await self._database.commit(changes)
        if is_queued:
            self._queue.wake()

    async def _decided(self, rule: Rule[T], message: T) -> Sequence[Letter]:
        self.seen[rule.name] += 1
        try:
            letters = await rule.decide(message)
        except BirthmarkError as error:
            self.refused(rule, message, error)
            return ()
        except Exception as error:  # noqa: BLE001 - a mistake of ours costs one message of one rule, and is noted
            note(f"the rule {rule.name}", error)
            return ()
        if letters:
            self.matched[rule.name] += 1
        return letters

    async def _gone(self, made: Sequence[tuple[str, Letter]]) -> Mapping[str, BirthmarkError | None]:
        """Carry what waits for nobody outside; return what came of each of those."""
        by_kind: defaultdict[str, list[tuple[str, Letter]]] = defaultdict(list)
        for id_, letter in made:
            if self._carriers[letter.kind].is_quick:
                by_kind[letter.kind].append((id_, letter))
        found: dict[str, BirthmarkError | None] = {}
        for kind, some in by_kind.items():
            results = await self._carriers[kind].carry([letter for _, letter in some])
            found |= {id_: problem for (id_, _), problem in zip(some, results, strict=True)}
        return found

    async def send(self, id_: str, letter: Letter) -> None:
        """Send what no message led to directly, such as word of a failure; what fails is queued."""
        problem: BirthmarkError | None = None
        if self._carriers[letter.kind].is_quick:
            (problem,) = await self._carriers[letter.kind].carry([letter])
            if problem is None:
                self.gone[letter.lane] += 1
                return
        changes = Changes()
        if self._queue.add(changes, id_, letter, problem):
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
