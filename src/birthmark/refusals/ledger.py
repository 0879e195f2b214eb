"""Non-blocking recording of refusals, and lookup by any name that the operator may have.

A refusal is indexed by tracking ID, registration, device or thing ID, common name, MQTT client ID and thumbprint.
Recording is best effort: it is queued with other commits, at most `MAX_PENDING` wait, and each address has a share.
Rows older than `KEEP` are deleted. Beyond `MAX_ROWS`, the oldest rows of the addresses with the most rows are deleted,
so that no client displaces the others. Client data in a refusal is truncated to `MAX_CHARS`.
"""

import asyncio
import contextlib
import logging
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

from birthmark import supervised_tasks
from birthmark.bus.ports import BusRequest, Reply
from birthmark.clock_and_entropy import Clock, ClockStability, Entropy, new_uuid
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.net.quota_key import share_of
from birthmark.pki.certificates import Certificate
from birthmark.rate_limits import RateLimits
from birthmark.refusals import store
from birthmark.refusals.presented_certificates import PresentedCertificates
from birthmark.refusals.store import Refusal
from birthmark.store import Changes, Database, to_micros
from birthmark.store.object_counters import HOUR


class PresentedThere(Reply, frozen=True, tag="refusals.presented_there"):
    """A certificate in DER; empty if that worker has none with the thumbprint."""

    der: bytes


class PresentedRequest(BusRequest[PresentedThere], frozen=True, tag="refusals.ask_presented"):
    """Asks other workers for the presented certificate with a thumbprint."""

    thumbprint: bytes


Kept: TypeAlias = tuple[str, int, str]
"""A row for pruning: its ID, time and share."""


def select_surplus(rows: Iterable[Kept], *, before: int, kept: int, of_one: int) -> list[str]:
    """Return the IDs of rows to delete: before `before`, beyond `of_one` per share, or beyond `kept` in total.

    The latest row of each share has priority, then the second of each, and so on: the largest shares lose rows first.
    """
    leaving = []
    shares: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for one, at, share in rows:
        if at < before:
            leaving.append(one)
        else:
            shares[share].append((-at, one))
    places: list[tuple[int, int, str]] = []
    for of_share in shares.values():
        of_share.sort()
        leaving += [one for _, one in of_share[of_one:]]
        places += [(rank, since, one) for rank, (since, one) in enumerate(of_share[:of_one])]
    places.sort()
    return leaving + [one for _, _, one in places[kept:]]


log = logging.getLogger(__name__)

FIGURE, FAILED_RENEWALS = "refusals", "failed renewals"
KEEP = timedelta(days=7)
MAX_ROWS = 50_000
MAX_ROWS_OF_ONE = 5_000  # per address quota
MAX_PENDING = 1000
MAX_CHARS = 2000
_MAX_FACT_CHARS = 500
_PRUNE_EVERY = 1000
_AT_ONCE = 16
"""Rows per commit: about 2 ms of loop time, however many refusals occur at once."""
_PAGE, _SLICE = 500, 50
# Facts that index a refusal, with names that operators know.
_NAMES = (
    "registration_id",
    "device_id",
    "thing",
    "common_name",
    "thumbprint",
    "certificate_id",
    "access_key_id",
    "scope",
    "subject_id",
    "client_id",
    "user",
    "sni",
)


@dataclass(frozen=True, slots=True)
class _RefusedRequest:
    refusal_id: str
    at: datetime
    error: BirthmarkError = field(repr=False)
    address: str
    facts: Mapping[str, str]


@dataclass(slots=True)
class _PendingRefusals:
    """Pending refusals, taken from each address share in turn. When full, the largest share loses its newest."""

    count: int = 0
    _of: OrderedDict[str, deque[_RefusedRequest]] = field(default_factory=OrderedDict)

    def has_room(self, share: str) -> bool:
        return self.count < MAX_PENDING or len(self._of.get(share, ())) < self.count // max(1, len(self._of))

    def add(self, share: str, refused: _RefusedRequest) -> None:
        if self.count >= MAX_PENDING:
            most = max(self._of, key=lambda one: len(self._of[one]))
            self._of[most].pop()
            if not self._of[most]:
                del self._of[most]
            self.count -= 1
        self._of.setdefault(share, deque()).append(refused)
        self.count += 1

    def take(self, limit: int) -> list[_RefusedRequest]:
        taken: list[_RefusedRequest] = []
        while self._of and len(taken) < limit:
            share, waiting = self._of.popitem(last=False)
            taken.append(waiting.popleft())
            if waiting:
                self._of[share] = waiting  # after the others
        self.count -= len(taken)
        return taken


Hears = Callable[[str, str, str, Mapping[str, str]], None]


class Ledger:
    """Sink for refusals of services and transport."""

    def __init__(self, database: Database, clock: Clock, entropy: Entropy, heard: Hears | None = None) -> None:
        """`heard` receives each recorded refusal: its code, the address, the tracking ID and the facts."""
        self._database = database
        self._clock = clock
        self._steadiness = ClockStability(clock)
        self._entropy = entropy
        self._waiting = _PendingRefusals()
        self._writer: asyncio.Task[None] | None = None
        self._pruner: asyncio.Task[None] | None = None
        self._recorded = 0
        self.counts: Counter[str] = Counter()
        self.failed_renewals: Counter[str] = Counter()
        """Refusals that prevented a certificate renewal."""
        self._uncounted: Counter[tuple[str, str, int]] = Counter()
        """Uncommitted refusal counts by counter, code and hour, including those without a stored row."""
        self._heard = heard
        self.presented = PresentedCertificates()
        self._limits = RateLimits()

    def record(
        self,
        error: BirthmarkError,
        *,
        address: str = "",
        whose: str = "",
        presented: Certificate | None = None,
        tracking_id: str | None = None,
        unrenewed: str = "",
        **facts: str,
    ) -> str:
        """Record a refusal and return its tracking ID at once; the row follows with the next commit.

        Without an address, it counts in the share of `whose`, a key or a client. `unrenewed` names a certificate whose
        renewal it prevented.
        """
        self.counts[error.code] += 1
        at = self._clock.now()
        self._uncounted[FIGURE, error.code, to_micros(at) // HOUR * HOUR] += 1
        if unrenewed:
            self.failed_renewals[error.code] += 1
            self._uncounted[FAILED_RENEWALS, error.code, to_micros(at) // HOUR * HOUR] += 1
        refusal_id = tracking_id or new_uuid(self._entropy)
        known = {name: _cut(value, _MAX_FACT_CHARS) for name, value in {**error.facts, **facts}.items() if value}
        if presented is not None:
            known.setdefault("thumbprint", presented.thumbprint.hex())
            known.setdefault("common_name", _cut(presented.subject_cn or "", _MAX_FACT_CHARS))
        said = {"code": error.code, "tracking_id": refusal_id, "address": address}
        log.info("refused", extra=said | ({"whose": whose} if whose else {}))
        share = share_of(address) or whose
        if presented is not None:
            self.presented.add(share, presented)
        if self._waiting.has_room(share) and self._limits.has_room(share, self._clock.monotonic()):
            self._waiting.add(share, _RefusedRequest(refusal_id, at, error, address, known))
            if self._heard is not None:
                self._heard(error.code, address, refusal_id, known)
            if self._writer is None:
                self._writer = asyncio.create_task(supervised_tasks.told("refusals.write", self._write()))
        return refusal_id

    async def wait_until_written(self, limit_s: float | None = None) -> None:
        """Wait until every refusal so far is written, or `limit_s` has passed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                if self._writer is not None:
                    await asyncio.wait((self._writer,))
                if self._pruner is not None:
                    await asyncio.wait((self._pruner,))

    async def _write(self) -> None:
        try:
            while some := self._waiting.take(_AT_ONCE):
                await self._file(some)
                rounds = (self._recorded - 1) // _PRUNE_EVERY
                self._recorded += len(some)
                is_due = (self._recorded - 1) // _PRUNE_EVERY > rounds
                if is_due and (self._pruner is None or self._pruner.done()):
                    before = to_micros(self._clock.now() - KEEP) if self._steadiness.is_steady() else 0
                    self._pruner = asyncio.create_task(supervised_tasks.told("refusals.prune", self._prune(before)))
        finally:
            self._writer = None

    async def _file(self, refused: Sequence[_RefusedRequest]) -> None:
        """Write all refusals; one that cannot be written does not affect the others."""
        try:
            changes = Changes()
            for one in refused:
                _add(changes, one)
            await self._commit_with_counts(changes)
        except Exception as problem:  # noqa: BLE001 - an invalid item must not block later ones
            if len(refused) > 1 and not isinstance(problem, UnavailableError):
                for one in refused:
                    await self._file([one])
                return
            supervised_tasks.note("refusals.write", problem)
            for one in refused:
                log.warning("refusal.not_recorded", extra={"tracking_id": one.refusal_id})

    async def _commit_with_counts(self, changes: Changes) -> None:
        """Commit with the counts of all refusals so far."""
        counted, self._uncounted = self._uncounted, Counter()
        for (figure, code, since), by in counted.items():
            changes.count(figure, state=code, since=since, by=by)
        try:
            await self._database.commit(changes)
        except BaseException:
            self._uncounted.update(counted)
            raise

    async def _prune(self, before: int) -> None:
        """Delete surplus rows in the background; each page and slice costs as much as one or two lookups."""
        rows: list[Kept] = []
        after = ""
        while page := await self._database.all(store.PAGE, after=after, limit=_PAGE):
            rows += [(row["id"], row["at"], store.share_of_row(row["address"])) for row in page]
            after = page[-1]["id"]
            await asyncio.sleep(0)
        leaving = await asyncio.to_thread(select_surplus, rows, before=before, kept=MAX_ROWS, of_one=MAX_ROWS_OF_ONE)
        for start in range(0, len(leaving), _SLICE):
            changes = Changes()
            for one in leaving[start : start + _SLICE]:
                changes.run(store.FORGET, id=one).run(store.FORGET_NAMES, refusal=one)
            await self._database.commit(changes)


def _add(changes: Changes, request: _RefusedRequest) -> None:
    told = (str(request.error), *request.error.explain_for_display())
    message, cause, fix = (_cut(text, MAX_CHARS) for text in told)
    address = store.kept_address(request.address)
    row = Refusal(request.refusal_id, request.at, request.error.code, message, cause, fix, address, request.facts)
    changes.run(store.ADD, **store.REFUSALS.row(row))
    names = {request.refusal_id.lower(), *(request.facts[name].lower() for name in _NAMES if request.facts.get(name))}
    for name in sorted(names):
        changes.run(store.NAME, subject=name, refusal=request.refusal_id, at=to_micros(request.at))


def _cut(text: str, limit: int) -> str:
    """Return `text` truncated, with characters that not every database stores (NUL, lone surrogates) escaped."""
    return text[:limit].replace("\0", "\\u0000").encode("utf-8", "backslashreplace").decode()
