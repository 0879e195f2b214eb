"""What the rules say to readings, and what becomes of an alert by what was found."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.alerts.model import (
    Alert,
    AlertFinding,
    AlertRule,
    AlertSeverity,
    MachineReading,
    Readings,
    Silence,
    Thresholds,
    UpcomingExpiry,
)
from birthmark.alerts.rules import CATALOGUE, RULES, code_of, fix_of, found, is_silenced, step
from support.fakes import NOON

QUIET = Readings(now=NOON)
SOON = NOON + timedelta(hours=5)
WELL = MachineReading("w1", "gateway", NOON, disk_free_ppm=500_000, is_clock_steady=True)
CAUSES: dict[str, dict[str, Any]] = {
    "certificate-unrenewed": {"unrenewed": 2, "unrenewed_names": ("pump-1", "pump-2")},
    "renewal-refused": {"failed_renewals": {"est.reenroll_identity_changed": 2, "ca.upstream_answer": 1}},
    "enrollment-refused": {"refusals": {"est.csr_invalid": 3}},
    "refusal-spike": {"refusals": {"tls.refused": 400}, "refusals_before": {"tls.refused": 12.0}},
    "identity-contested": {"contested": ("pump-1",)},
    "ca-ends": {"cas": [UpcomingExpiry("issuing", SOON)]},
    "crl-ends": {"lists": [UpcomingExpiry("root", SOON)]},
    "server-certificate-ends": {"machines": [replace(WELL, server_ends=SOON)]},
    "clock-jumped": {"machines": [replace(WELL, is_clock_steady=False)]},
    "clock-wrong": {"machines": [WELL, replace(WELL, worker="w2", clock_off_us=-5_100_000)]},
    "disk-full": {"machines": [WELL, replace(WELL, worker="w2", disk_free_ppm=20_000)]},
    "outbox-behind": {"outbox": timedelta(hours=1)},
    "webhook-failing": {"failing": [UpcomingExpiry("plant", NOON - timedelta(hours=1))]},
}


def test_every_rule_has_a_cause_here() -> None:
    assert set(CAUSES) == set(RULES)


@pytest.mark.parametrize("rule", sorted(CAUSES))
def test_a_rule_finds_its_cause_and_nothing_else_does(rule: str) -> None:
    readings = replace(QUIET, **CAUSES[rule])
    assert {one.rule for one in found(readings, Thresholds())} == {rule}
    assert found(readings, Thresholds(), off=[rule]) == []


def test_where_nothing_is_wrong_nothing_is_found() -> None:
    far = NOON + timedelta(days=90)
    machines = [replace(WELL, server_ends=far, clock_off_us=4_900_000)]
    fine = replace(QUIET, cas=[UpcomingExpiry("root", far)], lists=[UpcomingExpiry("root", far)], machines=machines)
    assert found(fine, Thresholds()) == []


def test_limits_are_those_that_are_asked_for() -> None:
    soon = replace(QUIET, lists=[UpcomingExpiry("root", NOON + timedelta(hours=30))])
    assert found(soon, Thresholds()) == []
    assert [one.rule for one in found(soon, Thresholds(crl_ends=timedelta(days=2)))] == ["crl-ends"]
    off = replace(QUIET, machines=[replace(WELL, clock_off_us=2_000_000)])
    assert [one.rule for one in found(off, Thresholds(clock_off=timedelta(seconds=1)))] == ["clock-wrong"]


@pytest.mark.parametrize(("count", "before", "is_spike"), [(99, 0.0, False), (100, 0.0, True), (400, 100.0, False)])
def test_a_spike_is_much_and_much_more_than_before(count: int, before: float, is_spike: bool) -> None:
    readings = replace(QUIET, refusals={"tls.refused": count}, refusals_before={"tls.refused": before})
    assert bool(found(readings, Thresholds())) is is_spike


def test_each_machine_is_named_once_by_its_worst_worker() -> None:
    machines = [
        replace(WELL, worker="w1", disk_free_ppm=40_000),
        replace(WELL, worker="w2", disk_free_ppm=20_000),
        replace(WELL, worker="m2-w1", machine="m2 (other)", disk_free_ppm=30_000),
        replace(WELL, worker="m3-w1", machine="m3 (third)"),
    ]
    gateway, other = found(replace(QUIET, machines=machines), Thresholds())
    assert (gateway.subject, gateway.count, gateway.examples) == ("gateway", 2, ("w1", "w2"))
    assert gateway.detail == "2.0% of the disk with the data directory of gateway is free"
    assert (other.subject, other.examples) == ("m2 (other)", ("m2-w1",))


@pytest.mark.parametrize(("off_us", "says"), [(7_250_000, "7.2 s ahead of"), (-7_250_000, "7.2 s behind")])
def test_a_wrong_clock_is_told_with_how_wrong_and_which_way(off_us: int, says: str) -> None:
    (one,) = found(replace(QUIET, machines=[replace(WELL, clock_off_us=off_us)]), Thresholds())
    assert (one.rule, one.subject) == ("clock-wrong", "gateway")
    assert says in one.detail


def test_a_refused_renewal_is_no_refused_enrollment() -> None:
    refusals = {"est.body_invalid": 5, "ca.name_held": 1}
    readings = replace(QUIET, refusals=refusals, failed_renewals={"est.body_invalid": 4})
    (one,) = found(readings, Thresholds())
    assert (one.rule, one.count, one.examples) == ("renewal-refused", 4, ("est.body_invalid",))
    both = found(replace(readings, failed_renewals={"est.body_invalid": 3}), Thresholds())
    assert [(one.rule, one.count) for one in both] == [("renewal-refused", 3), ("enrollment-refused", 3)]


def test_what_has_ended_is_said_so() -> None:
    (one,) = found(replace(QUIET, cas=[UpcomingExpiry("root", NOON - timedelta(days=3))]), Thresholds())
    assert one.detail == "the CA root has ended"


def test_a_receiver_that_takes_nothing_is_named_with_why() -> None:
    failing = [UpcomingExpiry("ops", NOON - timedelta(hours=1), "The mail server does not let birthmark in: 535.")]
    (one,) = found(replace(QUIET, failing=failing), Thresholds())
    assert (one.subject, "not let birthmark in" in one.detail) == ("ops", True)


@pytest.mark.parametrize("rule", CATALOGUE, ids=lambda rule: rule.name)
def test_a_rule_for_prometheus_takes_the_same_limits(rule: AlertRule) -> None:
    limits = {
        "renewals": 1,
        "enrollments": 1,
        "refusals": 1,
        "spike": 1,
        "ca_ends_s": 1,
        "crl_ends_s": 1,
        "server_ends_s": 1,
        "disk_free": 1,
        "behind_s": 1,
        "clock_off_s": 1,
    }
    assert rule.metric in rule.expression.format(**limits)


DISK = "disk-full"
HELD = replace(next(rule for rule in CATALOGUE if rule.name == "disk-full"), holds=timedelta(minutes=5))
FOUND = AlertFinding("disk-full", "data", "full")


def test_what_has_not_held_is_not_raised_and_goes_without_a_word() -> None:
    first = step(None, FOUND, HELD, NOON)
    assert first is not None
    assert first.raised_at is None
    assert step(first, None, HELD, NOON + timedelta(minutes=1)) is None


def test_what_comes_and_goes_stays_one_alert() -> None:
    held = step(step(None, FOUND, HELD, NOON), FOUND, HELD, NOON + timedelta(minutes=5))
    assert held is not None
    assert held.raised_at == NOON + timedelta(minutes=5)
    gone = step(held, None, HELD, NOON + timedelta(minutes=6))
    assert gone is not None
    back = step(gone, FOUND, HELD, NOON + timedelta(minutes=7))
    assert back == held
    assert step(gone, None, HELD, NOON + timedelta(minutes=11)) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 600)), max_size=60))
def test_it_is_raised_once_until_it_is_over(looks: list[tuple[bool, int]]) -> None:
    now, alert, raised = NOON, None, 0
    for is_found, seconds in looks:
        now += timedelta(seconds=seconds)
        was, alert = alert, step(alert, FOUND if is_found else None, HELD, now)
        if alert is not None and alert.raised_at == now and (was is None or was.raised_at is None):
            raised += 1
        if was is not None and was.raised_at is not None and alert is None:
            raised -= 1
        assert raised in {0, 1}


@pytest.mark.parametrize(
    ("rule", "subject", "hours", "is_quiet"),
    [
        ("disk-full", "*", 1, True),
        ("disk-full", "dat?", 1, True),
        ("ca-ends", "*", 1, False),
        ("disk-full", "*", -1, False),
    ],
)
def test_a_silence_is_of_a_rule_and_of_subjects_for_a_while(
    rule: str, subject: str, hours: int, is_quiet: bool
) -> None:
    alert = Alert("disk-full", "data", AlertSeverity.CRITICAL, "full", 1, (), NOON, NOON)
    silence = Silence(rule, subject, NOON + timedelta(hours=hours), "anna", "why", NOON)
    assert is_silenced(alert, [silence], NOON) is is_quiet


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("renewal-refused", "est.reenroll_identity_changed"),
        ("enrollment-refused", "est.csr_invalid"),
        ("refusal-spike", "tls.refused"),
        ("identity-contested", "mqtt.identity_contested"),
    ],
)
def test_an_alert_about_refusals_leads_to_those_of_its_code(rule: str, code: str) -> None:
    (finding,) = (one for one in found(replace(QUIET, **CAUSES[rule]), Thresholds()) if one.rule == rule)
    alert = Alert(rule, finding.subject, AlertSeverity.WARNING, finding.detail, 1, finding.examples, NOON)
    assert code_of(alert) == code
    assert fix_of(alert) == f"birthmark why --code {code}"


def test_another_alert_leads_to_the_command_of_its_rule() -> None:
    alert = Alert("ca-ends", "issuing", AlertSeverity.CRITICAL, "it ends", 1, (), NOON)
    assert (code_of(alert), fix_of(alert)) == ("", RULES["ca-ends"].fix)
