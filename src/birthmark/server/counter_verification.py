"""Counters of a server, and their verification by a scan of the records at the same point in time."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Select,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal,
    literal_column,
    select,
    union_all,
)

from birthmark.awsiot.store import registry
from birthmark.ca import store as ca_store
from birthmark.clock_and_entropy import Clock
from birthmark.dps import store as dps_store
from birthmark.iothub import store as hub_store
from birthmark.refusals import ledger
from birthmark.refusals import store as refusal_store
from birthmark.store import Changes, Database, Statement, statement, to_micros
from birthmark.store.compiled_statements import Engine
from birthmark.store.core_tables import audit
from birthmark.store.object_counters import HOUR, SUMS, WEEK, CounterMismatch, StoredCounter, figures, week_of

HOURLY = (dps_store.FIGURE, ca_store.RENEWALS, ledger.FIGURE, ledger.FAILED_RENEWALS)
PERIODS: Mapping[str, int] = {
    hub_store.DEVICES: 0,
    registry.FIGURE: 0,
    ca_store.FIGURE: WEEK,
    **dict.fromkeys(HOURLY, HOUR),
}
"""All counters with the period of a row in microseconds; 0 for a current value."""
AT_LEAST = {ledger.FIGURE, ledger.FAILED_RENEWALS}
"""Counters for which the scan is only a lower bound: not every refusal has a row, and rows are deleted."""
KEPT = timedelta(days=400)
_PRUNE_EVERY_S = 6 * 3600.0

_FORGET_BEFORE = statement(
    figures.delete().where(figures.c.name == bindparam("name"), figures.c.since < bindparam("before"))
)


def _found(name: str, value: Any, state: Any, since: Any, *, above: Any = None) -> Select[Any]:
    columns: tuple[Any, ...] = (literal_column(f"'{name}'"), value, state, since, func.count(), literal_column("0"))
    names = ("name", "place", "state", "since", "value", "is_counted")
    made = select(*(column.label(label) for column, label in zip(columns, names, strict=True))).group_by(
        literal_column("2"), literal_column("3"), literal_column("4")
    )
    return made if above is None else made.where(above)


def _hour(column: Any) -> Any:
    return column // HOUR * HOUR


def _proof(engine: Engine) -> Any:
    """Return one statement that reads counters and records at the same point in time."""
    nothing: Any = literal_column("''")
    now = cast(literal(0), BigInteger)
    certificates, devices, refused = ca_store.certificates, hub_store.devices, refusal_store.refusals
    week = (certificates.c.not_after - week_of(0)) // WEEK * WEEK + week_of(0)
    state = case((certificates.c.revoked_at.is_(None), ca_store.VALID), else_=ca_store.TAKEN_BACK)
    is_enabled = {yes: hub_store.state_of(is_enabled=yes) for yes in (True, False)}
    registered = (audit.c.action == "dps.register") & (audit.c.at >= bindparam("from_since"))
    renewed = (audit.c.action == "certificate.issue") & (audit.c.at >= bindparam("from_since"))
    sides = [
        select(
            *(figures.c[name] for name in ("name", "place", "state", "since")),
            func.sum(figures.c.value).label("value"),
            literal_column("1").label("is_counted"),
        )
        .where(and_(*(figures.c.name != name for name in HOURLY)) | (figures.c.since >= bindparam("from_since")))
        .group_by(figures.c.name, figures.c.place, figures.c.state, figures.c.since),
        _found(
            hub_store.DEVICES,
            devices.c.hub,
            case((devices.c.enabled == 1, is_enabled[True]), else_=is_enabled[False]),
            now,
        ),
        _found(registry.FIGURE, nothing, nothing, now).select_from(registry.things),
        _found(ca_store.FIGURE, certificates.c.profile, state, week),
        _found(dps_store.FIGURE, _told(engine, "scope"), nothing, _hour(audit.c.at), above=registered),
        _found(
            ca_store.RENEWALS,
            _told(engine, "profile"),
            nothing,
            _hour(audit.c.at),
            above=renewed & audit.c.detail.contains('"renews":'),
        ),
        _found(
            ledger.FIGURE, nothing, refused.c.code, _hour(refused.c.at), above=refused.c.at >= bindparam("from_since")
        ),
    ]
    return union_all(*sides)


def _told(engine: Engine, name: str) -> Any:
    text = f"json_extract(detail, '$.{name}')" if engine == "sqlite" else f"CAST(detail AS json) ->> '{name}'"
    return func.coalesce(literal_column(text), literal_column("''"))


_PROOF = Statement(_proof)


class CounterValues:
    """Counters of a server, for all its workers."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def read(self, name: str, since: int = 0) -> Sequence[StoredCounter]:
        """Return the counters of a name for periods that start at `since`, in microseconds, or later."""
        return [_of(row) for row in await self._database.all(SUMS, name=name, from_since=since) if row["value"]]

    async def prove(self) -> Sequence[CounterMismatch]:
        """Return the differences from a scan of all records; empty if every counter is correct."""
        oldest = to_micros(self._clock.now() - KEPT) // HOUR * HOUR
        counted: dict[tuple[str, str, str, int], int] = {}
        found: dict[tuple[str, str, str, int], int] = {}
        for row in await self._database.read_in_background(_PROOF, from_since=oldest):
            one = _of(row)
            side = counted if row["is_counted"] else found
            side[(one.name, one.place, one.state, one.since)] = one.value
        return [
            CounterMismatch(StoredCounter(*key, counted.get(key, 0)), found.get(key, 0))
            for key in sorted(counted.keys() | found.keys())
            if not _holds(key[0], counted.get(key, 0), found.get(key, 0))
        ]

    async def repair(self) -> None:
        """Set each counter to the scanned value: for a manually changed database without other writers."""
        changes = Changes()
        for one in await self.prove():
            named, by = one.counted, one.found - one.counted.value
            changes.count(named.name, named.place, named.state, since=named.since, by=by)
        await self._database.commit(changes)

    async def keep_pruned(self) -> None:
        """Delete old hourly counters periodically. Never returns."""
        while True:
            before = to_micros(self._clock.now() - KEPT) // HOUR * HOUR
            changes = Changes()
            for name in HOURLY:
                changes.run(_FORGET_BEFORE, name=name, before=before)
            await self._database.commit(changes)
            await asyncio.sleep(_PRUNE_EVERY_S)


def _holds(name: str, counted: int, found: int) -> bool:
    return counted >= found if name in AT_LEAST else counted == found


def _of(row: Mapping[str, Any]) -> StoredCounter:
    return StoredCounter(row["name"], row["place"], row["state"], int(row["since"]), int(row["value"]))
