"""The checks of `scripts/soak history`: nothing is found in a good history, and each planted fault in a bad one."""

import json
import random
import re
from pathlib import Path

import pytest

from support.history import checks
from support.history.checks import figures, findings
from support.history.events import (
    C2D,
    NEIGHBOR,
    RETAINED,
    SHADOW,
    STREAMS,
    TELEMETRY,
    FinalValue,
    GrantAttempt,
    History,
    InjectedFault,
    LineChange,
    NumberSeen,
    NumberSent,
    ReadinessPoll,
    RevocationAnswer,
    a_history,
    history_of,
)
from support.history.plants import PLANTS

NUMBERS = range(1, 9)
RECEIVERS = {C2D: "pump", NEIGHBOR: "lamp"}


def a_good_history() -> History:
    """Two clients for 60 s: a worker is killed at 10, PostgreSQL is away at 30, a certificate is revoked at 11."""
    history = a_history()
    for stream in STREAMS:
        for number in NUMBERS:
            history.sent.append(NumberSent(stream, "pump", number, number * 5.0, number * 5.0 + 0.1))
            if stream != RETAINED:
                receiver = RECEIVERS.get(stream, "")
                history.seen.append(NumberSeen(stream, "pump", number, number, receiver, number * 5.0 + 0.2))
    history.finals.extend([FinalValue(SHADOW, "pump", 8, 8), FinalValue(RETAINED, "pump", 8)])
    history.lines.extend([LineChange("pump", 0.0, True, False), LineChange("lamp", 0.0, True, False)])
    history.lines.extend([LineChange("pump", 10.2, False), LineChange("pump", 12.0, True)])
    history.faults.extend([InjectedFault("worker-killed", 10.0, 10.0), InjectedFault("postgresql-fast", 30.0, 31.8)])
    away = ((10.0, 10.6), (30.0, 33.2))
    for number in range(60 * 20):
        at = number / 20
        is_ready = not any(begin <= at < end for begin, end in away)
        history.polls.append(ReadinessPoll(at, at + 0.01, is_ready))
    history.answers.append(RevocationAnswer("stolen", 11.0))
    for channel in ("connect", "https"):
        history.attempts.extend(GrantAttempt("stolen", channel, at, at + 0.1, at < 12) for at in (9.0, 11.5, 13.0))
    return history._replace(end=60.0)


def checks_of(history: History) -> set[str]:
    return {finding.check for finding in findings(history)}


def test_nothing_is_found_in_a_good_history() -> None:
    assert findings(a_good_history()) == []


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_fault_is_found(name: str) -> None:
    for seed in range(5):
        assert PLANTS[name].found_as in checks_of(PLANTS[name].apply(a_good_history(), random.Random(seed)))


def test_something_is_planted_for_every_check() -> None:
    names = set(re.findall(r'Finding\("([a-z ]+)"', Path(checks.__file__).read_text()))
    assert names == {plant.found_as for plant in PLANTS.values()}


def test_what_a_client_sent_again_may_be_stored_again() -> None:
    history = a_good_history()
    history.seen.append(NumberSeen(TELEMETRY, "pump", 2, 9))
    assert checks_of(history) == {"doubled"}
    resent = [row._replace(copies=2) if row.number == 2 else row for row in history.sent]
    assert findings(history._replace(sent=resent)) == []


def test_a_message_may_be_delivered_again_after_a_reconnection_alone() -> None:
    history = a_good_history()
    history.seen.append(NumberSeen(C2D, "pump", 2, 9, "pump", 12.5))
    assert findings(history) == []
    history.seen.append(NumberSeen(C2D, "pump", 3, 10, "pump", 19.0))
    assert checks_of(history) == {"doubled"}


def test_a_message_may_be_delivered_again_if_a_part_failed_before_its_acknowledgement() -> None:
    history = a_good_history()
    history.seen.append(NumberSeen(NEIGHBOR, "pump", 2, 9, "lamp", 10.3))
    assert findings(history) == []
    history.seen.append(NumberSeen(NEIGHBOR, "pump", 3, 10, "lamp", 15.3))
    assert checks_of(history) == {"doubled"}


def test_numbers_that_were_underway_together_have_no_order() -> None:
    history = PLANTS["late telemetry"].apply(a_good_history(), random.Random(1))
    together = [row._replace(acked=59.0) for row in history.sent if row.stream == TELEMETRY]
    assert "order" in checks_of(history)
    assert "order" not in checks_of(history._replace(sent=together))


def test_a_recorded_history_is_read_again() -> None:
    history = a_good_history()
    assert history_of(json.loads(json.dumps(history))) == history


def test_the_figures_of_a_run() -> None:
    told = figures(a_good_history())
    assert told["telemetry"]["ack_s"] == {"count": 8, "p50": 0.1, "p95": 0.1, "p99": 0.1, "max": 0.1}
    assert told["cuts"] == {"count": 1, "p50": 1.8, "p95": 1.8, "p99": 1.8, "max": 1.8}
    assert told["by_fault"]["worker-killed"] == {"lasted_s": [0.0], "not_ready_s": [0.61], "cut": [1]}
    assert told["revocations"]["tried_after"] == 4
    assert told["revocations"]["granted_after_s"]["max"] == 0.5


def test_what_a_slow_machine_alone_can_cause_is_not_what_is_lost() -> None:
    lost, slow = (PLANTS[name].apply(a_good_history(), random.Random(1)) for name in ("lost telemetry", "slow"))
    assert not checks_of(lost) & checks.TIMED
    assert checks_of(slow) <= checks.TIMED
