"""Record refusals without holding anyone up, and find them again by any name the operator may have.

A refusal is found by tracking id, registration, device or thing id, common name, MQTT client id or thumbprint.
Recording is best effort: it is queued with other commits, at most `MAX_PENDING` wait, an address has its share, and
rows older than `KEEP` leave. Beyond `MAX_ROWS` the oldest of the addresses with most rows leave, so that nobody pushes
the others out. What a client put into a refusal is cut to `MAX_CHARS`.
"""

import asyncio
import contextlib
import logging
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from birthmark import supervised_tasks
from birthmark.bus.ports import BusRequest, Reply
from birthmark.clock import Clock, ClockStability, Entropy, new_uuid
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.net.quota_key import share_of
from birthmark.pki.certificates import Certificate
from birthmark.rate_limits import RateLimits
from birthmark.refusals import store
from birthmark.refusals.presented_certificates import PresentedCertificates
from birthmark.refusals.store import Refusal
from birthmark.store import Changes, Database, to_micros
from birthmark.store.counters import HOUR
from birthmark.store.database import DatabaseReader
from birthmark.store.pagination import PageInvalidError


class PresentedThere(Reply, frozen=True, tag="refusals.presented_there"):
    """A certificate in DER, empty where that worker remembers none of that thumbprint."""

    der: bytes


class PresentedRequest(BusRequest[PresentedThere], frozen=True, tag="refusals.ask_presented"):
    """Say which certificate was presented to you, by its thumbprint."""

    thumbprint: bytes


Kept: TypeAlias = tuple[str, int, str]
"""A row as far as it counts: its id, when it was, and whose share it is."""


def surplus(rows: Iterable[Kept], *, before: int, kept: int, of_one: int) -> list[str]:
    """Return the ids of the rows that leave: of before a moment, of a share beyond `of_one`, beyond `kept` in all.

    The latest of each share come first, then the second of each, and so on: who has most goes first.
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
MAX_ROWS_OF_ONE = 5_000  # of one address's share
MAX_PENDING = 1000
MAX_CHARS = 2000
_MAX_FACT_CHARS = 500
_PRUNE_EVERY = 1000
_AT_ONCE = 16
"""Rows of one commit: some two milliseconds of the loop, however many are refused at once."""
_PAGE, _SLICE = 500, 50
_END = 2**62
"""After every moment."""
# The facts under which a refusal is filed, as operators know them.
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
    """What is to be written, of each share of addresses in turn. Where there is too much, who has most gets no more."""

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

    def take(self, most: int) -> list[_RefusedRequest]:
        taken: list[_RefusedRequest] = []
        while self._of and len(taken) < most:
            share, waiting = self._of.popitem(last=False)
            taken.append(waiting.popleft())
            if waiting:
                self._of[share] = waiting  # behind the others
        self.count -= len(taken)
        return taken


Hears = Callable[[str, str, str, Mapping[str, str]], None]


class Ledger:
    """Where rooms and transport report what they refused."""

    def __init__(self, database: Database, clock: Clock, entropy: Entropy, heard: Hears | None = None) -> None:
        """`heard` hears of each refusal that is kept: its code, the address, the tracking id and the facts."""
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
        """Those of the refusals by which a certificate was not renewed."""
        self._uncounted: Counter[tuple[str, str, int]] = Counter()
        """Refusals by figure, code and hour that no commit says of yet: also those of which no row is kept."""
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
        """File a refusal and return its tracking id. Returns at once; the row follows with the next commit.

        Where no address is known it counts in the share of `whose` it is, a key's or a client's. `unrenewed` names a
        certificate that was not renewed by it.
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

    async def settled(self, limit_s: float | None = None) -> None:
        """Return when every refusal so far is written, or `limit_s` are over."""
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
        """Write them all; what one of them has that cannot be written costs no other."""
        try:
            changes = Changes()
            for one in refused:
                _add(changes, one)
            await self._counting(changes)
        except Exception as problem:  # noqa: BLE001 - what is wrong with one keeps no later one out
            if len(refused) > 1 and not isinstance(problem, UnavailableError):
                for one in refused:
                    await self._file([one])
                return
            supervised_tasks.note("refusals.write", problem)
            for one in refused:
                log.warning("refusal.not_recorded", extra={"tracking_id": one.refusal_id})

    async def _counting(self, changes: Changes) -> None:
        """Commit, with the count of all that were refused until now."""
        counted, self._uncounted = self._uncounted, Counter()
        for (figure, code, since), by in counted.items():
            changes.count(figure, state=code, since=since, by=by)
        try:
            await self._database.commit(changes)
        except BaseException:
            self._uncounted.update(counted)
            raise

    async def _prune(self, before: int) -> None:
        """Remove what is too much. Nobody waits for it: each page and each slice is as much as one look-up or two."""
        rows: list[Kept] = []
        after = ""
        while page := await self._database.all(store.PAGE, after=after, limit=_PAGE):
            rows += [(row["id"], row["at"], store.share_of_row(row["address"])) for row in page]
            after = page[-1]["id"]
            await asyncio.sleep(0)
        leaving = await asyncio.to_thread(surplus, rows, before=before, kept=MAX_ROWS, of_one=MAX_ROWS_OF_ONE)
        for start in range(0, len(leaving), _SLICE):
            changes = Changes()
            for one in leaving[start : start + _SLICE]:
                changes.run(store.FORGET, id=one).run(store.FORGET_NAMES, refusal=one)
            await self._database.commit(changes)


def _add(changes: Changes, one: _RefusedRequest) -> None:
    told = (str(one.error), *one.error.explain_apart())
    message, cause, fix = (_cut(text, MAX_CHARS) for text in told)
    address = store.kept_address(one.address)
    row = Refusal(one.refusal_id, one.at, one.error.code, message, cause, fix, address, one.facts)
    changes.run(store.ADD, **store.REFUSALS.row(row))
    names = {one.refusal_id.lower(), *(one.facts[name].lower() for name in _NAMES if one.facts.get(name))}
    for name in sorted(names):
        changes.run(store.NAME, subject=name, refusal=one.refusal_id, at=to_micros(one.at))


def _cut(text: str, limit: int) -> str:
    """Return `text` short enough, and with what not every database keeps (NUL, lone surrogates) escaped."""
    return text[:limit].replace("\0", "\\u0000").encode("utf-8", "backslashreplace").decode()


async def refusals_about(
    database: DatabaseReader,
    subject: str | None,
    limit: int = 20,
    *,
    code: str | None = None,
    before: str | None = None,
) -> Sequence[Refusal]:
    """Return the latest refusals filed under `subject` (any letter case), or of all when it is None.

    Of one `code`, or those from before the one whose id is `before`. Raise `PageInvalidError`.
    """
    asked: dict[str, Any] = {"limit": limit, "before": before or "", "before_at": _END}
    if before is not None:
        if not (known := await database.all(store.AT, id=before)):
            raise PageInvalidError(detail="no refusal with that ID is stored")
        asked["before_at"] = known[0]["at"]
    if code is not None:
        asked["code"] = code
    if subject is None:
        rows = await database.all(store.LATEST if code is None else store.OF_CODE, **asked)
    else:
        about = store.ABOUT if code is None else store.ABOUT_OF_CODE
        rows = await database.all(about, subject=subject.strip().lower(), **asked)
    return [replace(store.REFUSALS.of(row), address=store.address_of(row["address"])) for row in rows]
