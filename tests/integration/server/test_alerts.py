"""Alerts as the database has them, on both engines: said once, over once, silenced; and what is read of a server."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from birthmark.alerts import store
from birthmark.alerts.identity_conflicts import IdentityConflicts, find_alternating_names
from birthmark.alerts.machine_readings_of_workers import Machines
from birthmark.alerts.model import AlertFinding, MachineReading, Readings, Thresholds
from birthmark.alerts.rules import found
from birthmark.alerts.service import OVER, RAISED, Alerts, RuleUnknownError, SilenceMissingError, SilenceTooLongError
from birthmark.clock_and_entropy import ClockStability, SystemClock
from birthmark.net.identity_conflicts import IdentityContestedError
from birthmark.pki.csr import parse_csr
from birthmark.server.alert_evaluator import AlertEvaluator
from birthmark.store import Changes, Database, open_database, statement
from birthmark.store.core_tables import audit
from support.fakes import NOON, FakeClock
from support.kills.interleaved import opened
from support.kills.interleaved_operations import fill
from support.pki.ca_world import OPERATOR
from support.pki.pki_builders import a_csr

pytestmark = [pytest.mark.anyio, pytest.mark.integration]
PLANT = AlertFinding("ca-ends", "issuing", "the CA issuing ends in 3 days")
SAID = statement(select(audit.c.action, audit.c.subject, audit.c.detail).order_by(audit.c.chain, audit.c.seq))
HOUR = timedelta(hours=1)
SEEN = MachineReading("w1", "gateway", NOON, disk_free_ppm=500_000, is_clock_steady=True)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await open_database(database_url, FakeClock())
    yield database
    await database.close()


def of(database: Database, me: str = "main") -> tuple[Alerts, FakeClock]:
    clock = FakeClock()
    return Alerts(database, clock, me), clock


async def said(database: Database) -> list[tuple[str, str]]:
    return [(row["action"], row["subject"]) for row in await database.all(SAID) if row["action"] in {RAISED, OVER}]


async def test_it_is_said_once_however_often_it_is_found_and_once_when_it_is_over(database: Database) -> None:
    alerts, clock = of(database)
    for _ in range(3):
        await alerts.judge([replace(PLANT, detail=f"the CA ends, look {clock.now():%S}")])
        clock.move(timedelta(seconds=10))
    assert len(await alerts.all()) == 1
    for _ in range(20):
        await alerts.judge([])
        clock.move(timedelta(seconds=10))
    assert await said(database) == [(RAISED, "issuing"), (OVER, "issuing")]
    assert await alerts.all() == []


async def test_what_is_said_names_the_rule_and_the_next_command(database: Database) -> None:
    alerts, _ = of(database)
    await alerts.judge([PLANT])
    (row,) = await database.all(SAID)
    told = json.loads(row["detail"])
    assert (told["rule"], told["severity"], told["says"]) == ("ca-ends", "critical", PLANT.detail)
    assert told["fix"] == "birthmark pki rollover status"


async def test_what_is_silenced_is_listed_and_not_said_until_the_silence_ends(database: Database) -> None:
    alerts, clock = of(database)
    await alerts.silence("ca-ends", "iss*", HOUR, "known", by="anna", actor="user:anna")
    await alerts.judge([PLANT])
    assert (await said(database), len(await alerts.all())) == ([], 1)
    clock.move(HOUR)
    await alerts.judge([PLANT])
    assert await said(database) == [(RAISED, "issuing")]
    assert await alerts.silences() == []


async def test_what_was_never_said_is_not_said_to_be_over(database: Database) -> None:
    alerts, clock = of(database)
    await alerts.silence("ca-ends", "*", HOUR, "known", by="anna", actor="user:anna")
    await alerts.judge([PLANT])
    for _ in range(20):
        await alerts.judge([])
        clock.move(timedelta(seconds=10))
    assert (await said(database), await alerts.all()) == ([], [])


async def test_a_silence_that_is_taken_back_is_none(database: Database) -> None:
    alerts, _ = of(database)
    await alerts.silence("ca-ends", "*", HOUR, "known", by="anna", actor="user:anna")
    await alerts.unsilence("ca-ends", "*", actor="user:anna")
    await alerts.judge([PLANT])
    assert await said(database) == [(RAISED, "issuing")]
    with pytest.raises(SilenceMissingError):
        await alerts.unsilence("ca-ends", "*", actor="user:anna")


async def test_a_silence_of_no_rule_or_without_end_is_refused(database: Database) -> None:
    alerts, _ = of(database)
    with pytest.raises(RuleUnknownError):
        await alerts.silence("ca-begins", "*", HOUR, "known", by="anna", actor="user:anna")
    with pytest.raises(SilenceTooLongError):
        await alerts.silence("ca-ends", "*", timedelta(days=31), "known", by="anna", actor="user:anna")


async def test_one_worker_judges_and_another_when_it_is_gone(database: Database) -> None:
    (one, clock), (other, its_clock) = of(database, "one"), of(database, "other")
    assert (await one.claim(), await other.claim(), await one.claim()) == (True, False, True)
    for moved in (clock, its_clock):
        moved.move(timedelta(minutes=2))
    assert (await other.claim(), await one.claim()) == (True, False)


async def test_of_two_workers_that_judge_at_once_one_says_it(database: Database) -> None:
    (one, _), (other, _) = of(database, "one"), of(database, "other")
    first = await one._known()
    await other.judge([PLANT])
    assert first == []
    assert await one._follow(first, [PLANT], [], one.clock.now()) == []  # as it decided before
    assert await said(database) == [(RAISED, "issuing")]


async def test_one_rule_is_shown_with_what_it_raised_and_its_silences(database: Database) -> None:
    alerts, _ = of(database)
    await alerts.judge([replace(PLANT, examples=("pump-1",)), AlertFinding("outbox-behind", "workers", "events wait")])
    await alerts.silence("ca-ends", "iss*", HOUR, "known", by="anna", actor="user:anna")
    await alerts.silence("disk-full", "*", HOUR, "known", by="anna", actor="user:anna")
    rule, raised, silences = await alerts.get_rule("ca-ends")
    assert (rule.name, [one.subject for one in raised], [one.subject for one in silences]) == (
        *("ca-ends", ["issuing"], ["iss*"]),
    )
    with pytest.raises(RuleUnknownError):
        await alerts.get_rule("ca-begins")


async def test_who_judges_seldom_keeps_others_from_it_for_longer(database: Database) -> None:
    (one, clock), (other, its_clock) = of(database, "one"), of(database, "other")
    assert await one.claim(timedelta(minutes=30))
    for moved in (clock, its_clock):
        moved.move(timedelta(minutes=29))
    assert not await other.claim(timedelta(minutes=30))


async def test_what_was_found_at_once_is_said_in_one_commit_with_what_is_over(database: Database) -> None:
    alerts, clock = of(database)
    await alerts.judge([PLANT])
    clock.move(timedelta(seconds=10))
    await alerts.judge([])
    clock.move(timedelta(minutes=3))
    commits = database.commits.sizes.counts.copy()
    more = [replace(PLANT, subject=f"ca-{number}") for number in range(150)]
    assert len(await alerts.judge(more)) == 151
    assert sum(database.commits.sizes.counts) - sum(commits) == 1
    assert len(await said(database)) == 152


async def test_who_has_silenced_what_was_said_hears_of_it_again_when_the_silence_ends(database: Database) -> None:
    alerts, clock = of(database)
    await alerts.judge([PLANT])
    await alerts.silence("ca-ends", "*", HOUR, "after lunch", by="anna", actor="user:anna")
    for _ in range(3):
        await alerts.judge([PLANT])
        clock.move(timedelta(minutes=10))
    assert await said(database) == [(RAISED, "issuing")]
    clock.move(HOUR)
    for _ in range(3):
        await alerts.judge([PLANT])
    assert await said(database) == [(RAISED, "issuing")] * 2


async def test_of_two_workers_that_both_see_the_silence_end_one_says_it(database: Database) -> None:
    (one, clock), (other, its_clock) = of(database, "one"), of(database, "other")
    await one.judge([PLANT])
    await one.silence("ca-ends", "*", HOUR, "after lunch", by="anna", actor="user:anna")
    await one.judge([PLANT])
    for moved in (clock, its_clock):
        moved.move(HOUR)
    known = await one._known()
    assert len(await other.judge([PLANT])) == 1
    assert await one._follow(known, [PLANT], [], clock.now()) == []
    assert await other.judge([PLANT]) == []


async def test_what_was_said_is_said_to_be_over_also_while_it_is_silenced(database: Database) -> None:
    alerts, clock = of(database)
    await alerts.judge([PLANT])
    await alerts.silence("ca-ends", "*", HOUR, "known", by="anna", actor="user:anna")
    for found_now in ([PLANT], [], []):
        await alerts.judge(found_now)
        clock.move(timedelta(minutes=3))
    assert await said(database) == [(RAISED, "issuing"), (OVER, "issuing")]


async def test_one_that_no_database_would_keep_keeps_no_other_from_being_said(database: Database) -> None:
    alerts, _ = of(database)
    odd = AlertFinding("ca-ends", "a\0b\ud800", "c\0d", examples=("e\0",))
    assert len(await alerts.judge([PLANT, odd])) == 2


async def test_what_is_read_of_a_server_in_order_is_nothing_to_say(database_url: str, tmp_path: Path) -> None:
    async with opened(tmp_path, clock := FakeClock(), database_url) as (rooms, _):
        await fill(rooms)
        alerting = AlertEvaluator(rooms, rooms.alerts, tmp_path)
        readings = await alerting.read()
        assert (readings.unrenewed, readings.contested, readings.failing) == (0, (), [])
        assert {one.name for one in readings.cas} >= {"root", "issuing"}
        await alerting.record_machine_reading(ClockStability(clock), clock.monotonic())
        await alerting.judge()
        assert alerting.last is not None
        (own,) = alerting.last.machines
        assert (own.machine, 0 < own.disk_free < 1) == (alerting.machine, True)
        assert [one.rule for one in await rooms.alerts.all() if one.rule != "disk-full"] == []


async def test_every_worker_that_lives_is_judged_by_what_it_saw_of_its_own_machine(
    database_url: str, tmp_path: Path
) -> None:
    async with opened(tmp_path, clock := FakeClock(SystemClock().now()), database_url) as (rooms, _):
        machines = Machines(rooms.database, clock)
        await machines.note(replace(SEEN, worker="m2-w1", machine="m2 (other)", disk_free_ppm=10_000))
        await machines.note(replace(SEEN, worker="m3-w1", machine="m3 (third)", server_ends=clock.now()))
        gone = replace(SEEN, worker="m4-w1", machine="m4 (gone)", at=clock.now() - HOUR, disk_free_ppm=0)
        await rooms.database.commit(Changes().run(store.PUT_LOOKED, **store.LOOKED.row(gone)))
        readings = await AlertEvaluator(rooms, rooms.alerts, tmp_path).read()
        assert [one.worker for one in readings.machines] == ["m2-w1", "m3-w1"]
        said = {(one.rule, one.subject) for one in found(readings, Thresholds())}
        assert said >= {("disk-full", "m2 (other)"), ("server-certificate-ends", "m3 (third)")}


async def test_a_worker_of_long_ago_is_forgotten(database: Database) -> None:
    gone = replace(SEEN, worker="m4-w1", at=SystemClock().now() - timedelta(days=2))
    await database.commit(Changes().run(store.PUT_LOOKED, **store.LOOKED.row(gone)))
    machines = Machines(database, SystemClock())
    assert len(await machines.alive(timedelta(days=9))) == 1
    await machines.note(SEEN)
    assert [one.worker for one in await machines.alive(timedelta(days=9))] == ["w1"]


@pytest.mark.parametrize("off_s", [-30, 30])
async def test_a_clock_is_compared_with_that_of_the_database(database: Database, database_url: str, off_s: int) -> None:
    now = SystemClock().now()
    wrong = FakeClock()
    wrong.move(now - wrong.now() + timedelta(seconds=off_s))
    seen = await Machines(database, wrong).note(SEEN)
    if database_url.startswith("sqlite"):  # it has no other clock
        assert seen.clock_off_us is None
        return
    assert abs(seen.clock_off.total_seconds() - off_s) < 5
    assert abs(seen.at - now) < timedelta(seconds=5)
    (one,) = found(Readings(now=now, machines=[seen]), Thresholds())
    assert one.rule == "clock-wrong"


async def test_what_two_workers_saw_end_is_looked_at_together_and_forgotten_in_the_end(database_url: str) -> None:
    one, other = [await open_database(database_url, FakeClock(), worker=name) for name in ("w1", "w2")]
    try:
        await IdentityConflicts(one).note("hub", {"pump-1": [(40.0, "a"), (20.0, "a")], "pump-2": []}, NOON)
        await IdentityConflicts(other).note("hub", {"pump-1": [(30.0, "b"), (10.0, "b")]}, NOON)
        recent = await IdentityConflicts(other).recent(NOON)
        assert sorted((of.name, of.worker) for of in recent) == [("pump-1", "w1"), ("pump-1", "w2"), ("pump-2", "w1")]
        (ends,) = find_alternating_names(recent, NOON, {}).values()
        assert [where for _, where in ends] == ["a", "b", "a", "b"]
        assert await IdentityConflicts(one).recent(NOON + timedelta(minutes=11)) == []
        assert len(await IdentityConflicts(one).recent(NOON)) == 3
        await IdentityConflicts(one).recent(NOON + timedelta(hours=2))
        assert await IdentityConflicts(one).recent(NOON) == []
    finally:
        await one.close()
        await other.close()


async def test_how_long_the_answer_takes_makes_no_clock_wrong(database: Database) -> None:
    class Slow(FakeClock):
        """A second goes by whenever it is looked at."""

        def now(self) -> datetime:
            self.move(timedelta(seconds=10))
            return super().now()

    slow = Slow()
    slow.move(SystemClock().now() - FakeClock().now() - timedelta(seconds=15))
    assert not (await Machines(database, slow).note(SEEN)).clock_off_us


async def test_a_certificate_that_ends_is_told_of_unless_its_name_has_a_later_one(
    database_url: str, tmp_path: Path
) -> None:
    async with opened(tmp_path, clock := FakeClock(), database_url) as (rooms, _):
        for name in ("pump-1", "pump-2"):
            await rooms.authority.issue(parse_csr(a_csr(name)), OPERATOR)
        clock.move(timedelta(hours=20))
        alerting = AlertEvaluator(rooms, rooms.alerts, tmp_path)
        assert set((await alerting.read()).unrenewed_names) == {"pump-1", "pump-2"}
        await rooms.authority.issue(parse_csr(a_csr("pump-2")), OPERATOR)
        readings = await alerting.read()
        assert (readings.unrenewed, readings.unrenewed_names) == (1, ("pump-1",))
        late = AlertEvaluator(rooms, rooms.alerts, tmp_path, Thresholds(unrenewed=timedelta(hours=1)))
        assert (await late.read()).unrenewed_names == ()  # there is more time until then
        clock.move(timedelta(hours=5))
        assert (await alerting.read()).unrenewed_names == ()  # it has ended


async def test_refusals_are_those_of_the_hour_and_of_the_day_before(database_url: str, tmp_path: Path) -> None:
    async with opened(tmp_path, clock := FakeClock(), database_url) as (rooms, _):
        for _ in range(24):
            rooms.ledger.record(IdentityContestedError(device_id="pump-1", count=4))
        await rooms.settled()
        alerting = AlertEvaluator(rooms, rooms.alerts, tmp_path)
        readings = await alerting.read()
        assert readings.refusals == {"mqtt.identity_contested": 24}
        assert readings.contested == ("pump-1",)
        clock.move(timedelta(hours=3))
        later = await alerting.read()
        assert (later.refusals, later.contested) == ({}, ())
        assert later.refusals_before == {"mqtt.identity_contested": 1.0}
