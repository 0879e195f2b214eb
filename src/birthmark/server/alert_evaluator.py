"""Periodic evaluation of alert rules, by one worker for all."""

import asyncio
import contextlib
import json
import logging
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import bindparam, func, select

from birthmark.alerts.identity_conflicts import IdentityConflicts, Name, find_alternating_names
from birthmark.alerts.machine_readings_of_workers import Machines
from birthmark.alerts.model import MachineReading, Readings, Thresholds, UpcomingExpiry
from birthmark.alerts.rules import CONTESTED, RULES, found
from birthmark.alerts.service import Alerts
from birthmark.ca import store as ca_store
from birthmark.clock_and_entropy import STEADY_S, ClockStability
from birthmark.errors import BirthmarkError
from birthmark.net.identity_conflicts import IdentityContestedError
from birthmark.operator_api.server_certificate_and_settings import ServerIdentity
from birthmark.pki.certificate_profiles import CertificateProfile
from birthmark.refusals import ledger
from birthmark.refusals import store as refusal_store
from birthmark.server.composition_root import ServerServices
from birthmark.server.counter_verification import CounterValues
from birthmark.store import from_micros, statement, to_micros
from birthmark.store.core_tables import outbox
from birthmark.store.object_counters import HOUR

log = logging.getLogger(__name__)

_ALIVE, _LOOKS = timedelta(minutes=1), 6
"""Maximum age and missed intervals of evaluations, after which another worker takes over."""
_COUNTED, _NAMED = 1000, 5
_NAMES_AT_ONCE, _PLACES = 500, 2
_HOUR = timedelta(hours=1)
_HOURS = 24

_certificates = ca_store.certificates
_later = _certificates.alias()
_UNRENEWED = statement(
    select(_certificates.c.device_id)
    .where(
        _certificates.c.profile == bindparam("profile"),
        _certificates.c.not_after > bindparam("now"),
        _certificates.c.not_after < bindparam("until"),
        _certificates.c.revoked_at.is_(None),
        _certificates.c.holds_name == 1,
        ~select(_later.c.thumbprint)
        .where(
            _later.c.name == _certificates.c.name,
            _later.c.not_after > _certificates.c.not_after,
            _later.c.revoked_at.is_(None),
        )
        .exists(),
    )
    .order_by(_certificates.c.not_after)
    .limit(bindparam("limit"))
)
_OLDEST = statement(select(func.min(outbox.c.at).label("at")))
_CONTESTED = statement(
    select(refusal_store.refusals.c.facts)
    .where(refusal_store.refusals.c.code == CONTESTED, refusal_store.refusals.c.at > bindparam("since"))
    .limit(100)
)


@dataclass(slots=True)
class AlertEvaluator:
    """Evaluates alert rules; `last` is the latest reading, None in a worker that does not evaluate."""

    rooms: ServerServices = field(repr=False)
    alerts: Alerts
    directory: Path
    limits: Thresholds = field(default_factory=Thresholds)
    off: Sequence[str] = ()
    every: timedelta = timedelta(seconds=10)
    machine: str = field(default_factory=socket.gethostname)
    server: ServerIdentity | None = None
    own: MachineReading | None = field(default=None, init=False)
    """Latest reading of this worker's machine."""
    _noticed: dict[Name, int] = field(default_factory=dict, init=False)
    """Time in microseconds up to which each identity conflict was reported."""
    last: Readings | None = field(default=None, init=False)
    firing: Mapping[str, int] = field(default_factory=dict, init=False)
    """Number of active alerts per rule, as evaluated by this worker."""

    async def keep_judging(self) -> None:
        """Evaluate periodically unless another worker does."""
        steadiness = ClockStability(self.rooms.authority.clock)
        began = self.rooms.authority.clock.monotonic()
        while True:
            try:
                await self.record_machine_reading(steadiness, began)
                if await self.alerts.claim(self._alive):
                    await self.judge()
                else:
                    self.last, self.firing = None, {}
            except BirthmarkError as error:  # database unavailable: the next run follows soon
                log.warning("alerts.not_judged", extra={"reason": error.explain_cause()})
            await asyncio.sleep(self.every.total_seconds())

    @property
    def _alive(self) -> timedelta:
        return max(_ALIVE, _LOOKS * self.every)

    async def record_machine_reading(self, steadiness: ClockStability, began: float) -> None:
        """Record this worker's machine readings. A clock without a stable reading since `began` counts as new."""
        clock = self.rooms.authority.clock
        disk = await asyncio.to_thread(shutil.disk_usage, self.directory)
        seen = MachineReading(
            worker=self.rooms.database.worker,
            machine=self.machine,
            at=clock.now(),
            disk_free_ppm=disk.free * 1_000_000 // disk.total,
            is_clock_steady=steadiness.is_steady() or clock.monotonic() - began < STEADY_S,
            server_ends=None if self.server is None else self.server.leaf.not_after,
        )
        self.own = seen
        self.own = await Machines(self.rooms.database, clock).note(seen)
        if not self.rooms.broker.is_alone:
            await self._tell_of_ends(self.own.at)

    async def _tell_of_ends(self, now: datetime) -> None:
        """Record the names whose connections ended here, as other workers may have ended others of them."""
        contesting, rooms = IdentityConflicts(self.rooms.database), self.rooms
        for kind, contested in (("hub", rooms.hub_connections.contested), ("aws", rooms.aws_connections.contested)):
            await contesting.note(kind, contested.take_updates(_NAMES_AT_ONCE), now)

    async def _notice_two(self, now: datetime) -> None:
        """Report names that are in use at two addresses, from the observations of all workers."""
        found = find_alternating_names(await IdentityConflicts(self.rooms.database).recent(now), now, self._noticed)
        self._noticed = {name: at for name, at in self._noticed.items() if at > to_micros(now - _HOUR)}
        for name, ends in found.items():
            self._noticed[name] = ends[-1][0]
            for address in sorted({where for _, where in ends})[:_PLACES]:  # for both in `why`
                self.rooms.ledger.record(IdentityContestedError(device_id=name[1], count=len(ends)), address=address)

    async def judge(self) -> None:
        """Read the inputs and evaluate once."""
        if self.own is not None and not self.rooms.broker.is_alone:
            await self._notice_two(self.own.at)
        readings = self.last = await self.read()
        for said, alert in await self.alerts.judge(found(readings, self.limits, self.off)):
            log.warning(said, extra={"rule": alert.rule, "subject": alert.subject, "says": alert.detail})
        raised = await self.alerts.all()
        self.firing = {rule: sum(1 for one in raised if one.rule == rule) for rule in RULES}

    async def read(self) -> Readings:
        """Return the inputs of the rules."""
        rooms, now = self.rooms, self.rooms.authority.clock.now()
        hierarchy = rooms.authority.hierarchy
        cas = {"root": hierarchy.anchor} | {str(of): one.certificate for of, one in hierarchy.issuers.items()}
        names = await self._unrenewed(now)
        refusals, before = await self._hourly(ledger.FIGURE, now)
        failed, _ = await self._hourly(ledger.FAILED_RENEWALS, now)
        oldest = await rooms.database.one(_OLDEST)
        waits = timedelta() if oldest is None or oldest["at"] is None else now - from_micros(oldest["at"])
        hooks = [one for one in await rooms.webhooks.all() if one.failed_since is not None and not one.is_paused]
        return Readings(
            now=now,
            cas=[UpcomingExpiry(name, ca.not_after) for name, ca in sorted(cas.items())],
            lists=await self._lists(now),
            machines=await Machines(rooms.database, rooms.authority.clock).alive(self._alive),
            unrenewed=len(names),
            unrenewed_names=tuple(names[:_NAMED]),
            refusals=refusals,
            failed_renewals=failed,
            refusals_before=before,
            contested=await self._contested(now),
            outbox=max(waits, timedelta()),
            failing=[
                UpcomingExpiry(one.name, one.failed_since, one.problem) for one in hooks if one.failed_since is not None
            ],
        )

    async def _unrenewed(self, now: datetime) -> list[str]:
        authority = self.rooms.authority
        names: list[str] = []
        for profile in authority.profiles.values():
            if not profile.is_ca:
                until = now + near_end(profile, authority.lifetimes, self.limits.unrenewed)
                moment = {"now": to_micros(now), "until": to_micros(until)}
                rows = await authority.database.read_in_background(
                    _UNRENEWED, profile=profile.name, limit=_COUNTED, **moment
                )
                names += [row["device_id"] for row in rows]
        return names

    async def _hourly(self, figure: str, now: datetime) -> tuple[dict[str, int], dict[str, float]]:
        """Return a counter of the last hour by code, and its hourly average of the preceding day."""
        this = to_micros(now) // HOUR * HOUR
        part = 1 - (to_micros(now) - this) / HOUR
        within: dict[str, float] = {}
        before: dict[str, float] = {}
        for one in await CounterValues(self.rooms.database, self.rooms.authority.clock).read(
            figure, this - (_HOURS + 1) * HOUR
        ):
            if one.since >= this:
                within[one.state] = within.get(one.state, 0.0) + one.value
            elif one.since == this - HOUR:  # partly within the hour
                within[one.state] = within.get(one.state, 0.0) + one.value * part
            else:
                before[one.state] = before.get(one.state, 0.0) + one.value / _HOURS
        return {code: int(count) for code, count in within.items()}, before

    async def _lists(self, now: datetime) -> list[UpcomingExpiry]:
        """Return the expiry of the published CRLs; a CRL near its expiry is reissued if possible."""
        authority, ends = self.rooms.authority, []
        for purpose in map(str, ("root", *authority.hierarchy.issuers)):
            ca = authority.hierarchy.named(purpose)
            if ca is None:
                continue
            row = await authority.database.one(ca_store.CRL_STATE, issuer=ca.thumbprint)
            end = None if row is None or not row["number"] else from_micros(row["next_update"])
            if end is None and authority.hierarchy.with_key(ca) is not None:
                continue  # not requested so far
            if end is None or end - now < self.limits.crl_ends:
                with contextlib.suppress(BirthmarkError):  # no key now
                    made = await authority.lists.named(purpose)
                    end = end if made is None else made.next_update
            if end is not None:
                ends.append(UpcomingExpiry(purpose, end))
        return ends

    async def _contested(self, now: datetime) -> tuple[str, ...]:
        rows = await self.rooms.database.all(_CONTESTED, since=to_micros(now - _HOUR))
        return tuple(sorted({str(json.loads(row["facts"]).get("device_id", "")) for row in rows} - {""}))


def near_end(profile: CertificateProfile, lifetimes: Mapping[str, timedelta], limit: timedelta) -> timedelta:
    """Return how long before its expiry a certificate of a profile should have been renewed."""
    return min(limit, (lifetimes.get(profile.name) or profile.lifetime) / 5)
