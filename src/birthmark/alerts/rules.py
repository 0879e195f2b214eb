"""Rule catalog and its evaluation of readings at one point in time. Pure; the time is in the readings."""

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

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

RAISED, OVER = "alert.raised", "alert.over"
CONTESTED = "mqtt.identity_contested"
_CALM = timedelta(minutes=2)
"""Time without a finding until an alert resolves, so that a flapping condition notifies once."""
_SOME = 5

Judge: TypeAlias = Callable[[Readings, Thresholds], Iterator[AlertFinding]]
_WARNING, _CRITICAL = AlertSeverity.WARNING, AlertSeverity.CRITICAL


def _unrenewed(of: Readings, _limits: Thresholds) -> Iterator[AlertFinding]:
    if of.unrenewed:
        detail = f"{of.unrenewed} certificates expire soon and were not renewed"
        yield AlertFinding("certificate-unrenewed", "certificates", detail, of.unrenewed, of.unrenewed_names)


def _renewals(of: Readings, limits: Thresholds) -> Iterator[AlertFinding]:
    if (count := sum(of.failed_renewals.values())) >= limits.renewals:
        detail = f"{count} renewals were refused within an hour"
        yield AlertFinding("renewal-refused", "certificates", detail, count, _most(of.failed_renewals))


def _enrollments(of: Readings, limits: Thresholds) -> Iterator[AlertFinding]:
    est = {code: count for code, count in of.refusals.items() if code.startswith(("est.", "ca."))}
    others = {code: count - of.failed_renewals.get(code, 0) for code, count in est.items()}
    refused = {code: count for code, count in others.items() if count > 0}
    if (count := sum(refused.values())) >= limits.enrollments:
        yield AlertFinding(
            "enrollment-refused", "est", f"{count} refusals of EST within an hour", count, _most(refused)
        )


def _spike(of: Readings, limits: Thresholds) -> Iterator[AlertFinding]:
    for code, count in sorted(of.refusals.items()):
        before = of.refusals_before.get(code, 0.0)
        if count >= limits.refusals and count > limits.spike * before:
            detail = f"{count} refusals within an hour, {before:.0f} in one of the day before"
            yield AlertFinding("refusal-spike", code, detail, count)


def _contested(of: Readings, _limits: Thresholds) -> Iterator[AlertFinding]:
    if of.contested:
        detail = f"{len(of.contested)} identities are used from two places by turns"
        yield AlertFinding("identity-contested", "devices", detail, len(of.contested), of.contested[:_SOME])


def _cas(of: Readings, limits: Thresholds) -> Iterator[AlertFinding]:
    for ca in of.cas:
        if ca.at - of.now < limits.ca_ends:
            yield AlertFinding("ca-ends", ca.name, _ends("the CA", ca, of.now))


def _lists(of: Readings, limits: Thresholds) -> Iterator[AlertFinding]:
    for one in of.lists:
        if one.at - of.now < limits.crl_ends:
            yield AlertFinding("crl-ends", one.name, _ends("the CRL of", one, of.now))


def _server(of: Readings, limits: Thresholds) -> Iterator[AlertFinding]:
    shown = {one: one.server_ends for one in of.machines if one.server_ends is not None}
    for worst, workers in _by_machine(
        (one for one, ends in shown.items() if ends - of.now < limits.server_ends), lambda one: shown[one].timestamp()
    ):
        detail = _ends("the server's certificate of", UpcomingExpiry(worst.machine, shown[worst]), of.now)
        yield AlertFinding("server-certificate-ends", worst.machine, detail, len(workers), workers[:_SOME])


def _clock(of: Readings, _limits: Thresholds) -> Iterator[AlertFinding]:
    for one, workers in _by_machine((one for one in of.machines if not one.is_clock_steady), lambda _: 0):
        detail = f"the clock of {one.machine} was changed within the last 10 minutes"
        yield AlertFinding("clock-jumped", one.machine, detail, len(workers), workers[:_SOME])


def _clock_off(of: Readings, limits: Thresholds) -> Iterator[AlertFinding]:
    wrong = (one for one in of.machines if abs(one.clock_off) > limits.clock_off)
    for worst, workers in _by_machine(wrong, lambda one: -abs(one.clock_off)):
        way = "ahead of" if worst.clock_off > timedelta() else "behind"
        off = abs(worst.clock_off).total_seconds()
        detail = f"the clock of {worst.machine} is {off:.1f} s {way} the database's clock; one of them is wrong"
        yield AlertFinding("clock-wrong", worst.machine, detail, len(workers), workers[:_SOME])


def _disk(of: Readings, limits: Thresholds) -> Iterator[AlertFinding]:
    full = (one for one in of.machines if one.disk_free < limits.disk_free)
    for worst, workers in _by_machine(full, lambda one: one.disk_free):
        detail = f"{worst.disk_free:.1%} of the disk with the data directory of {worst.machine} is free"
        yield AlertFinding("disk-full", worst.machine, detail, len(workers), workers[:_SOME])


def _outbox(of: Readings, limits: Thresholds) -> Iterator[AlertFinding]:
    if of.outbox > limits.behind:
        yield AlertFinding(
            "outbox-behind", "workers", f"events wait since {of.outbox.total_seconds() / 60:.0f} minutes"
        )


def _failing(of: Readings, limits: Thresholds) -> Iterator[AlertFinding]:
    for one in of.failing:
        if of.now - one.at > limits.behind:
            since = f"the receiver takes nothing since {one.at:%Y-%m-%d %H:%M} UTC"
            yield AlertFinding("webhook-failing", one.name, f"{since}: {one.why}" if one.why else since)


_END = "birthmark_certificate_expiry_timestamp_seconds"
CATALOGUE: Mapping[AlertRule, Judge] = {
    AlertRule(
        "certificate-unrenewed",
        _WARNING,
        "Device certificates expire soon, and no newer ones were issued for these names.",
        "birthmark pki ls --expiring 7d",
        "birthmark_certificates_unrenewed > 0",
        "birthmark_certificates_unrenewed",
        timedelta(minutes=5),
    ): _unrenewed,
    AlertRule(
        "renewal-refused",
        _WARNING,
        "Renewals of devices with a valid certificate are rejected: they lose access when it expires.",
        "birthmark why",
        "sum(increase(birthmark_renewals_refused_total[1h])) >= {renewals}",
        "birthmark_renewals_refused_total",
    ): _renewals,
    AlertRule(
        "enrollment-refused",
        _WARNING,
        "EST refuses certificates, again and again.",
        "birthmark why",
        'sum(increase(birthmark_refusals_total{{code=~"(est|ca)[.].+"}}[1h])) - '
        '(sum(increase(birthmark_renewals_refused_total{{code=~"(est|ca)[.].+"}}[1h])) or vector(0)) >= {enrollments}',
        "birthmark_refusals_total",
    ): _enrollments,
    AlertRule(
        "refusal-spike",
        _WARNING,
        "Many more requests are refused than the day before.",
        "birthmark why",
        "sum by (code) (increase(birthmark_refusals_total[1h])) >= {refusals} and sum by (code) "
        "(increase(birthmark_refusals_total[1h])) > {spike} * sum by (code) "
        "(increase(birthmark_refusals_total[24h] offset 1h)) / 24",
        "birthmark_refusals_total",
    ): _spike,
    AlertRule(
        "identity-contested",
        _CRITICAL,
        "One identity is used from two places by turns: a copy of a key, or two devices with one.",
        "birthmark why --limit 20",
        'increase(birthmark_refusals_total{{code="mqtt.identity_contested"}}[1h]) > 0',
        "birthmark_refusals_total",
    ): _contested,
    AlertRule(
        "ca-ends",
        _CRITICAL,
        "A CA of this server expires soon, and with it all certificates that it signed.",
        "birthmark pki rollover status",
        _END + '{{of!="server"}} - time() < {ca_ends_s}',
        _END,
    ): _cas,
    AlertRule(
        "crl-ends",
        _CRITICAL,
        "A CRL expires soon, and no new one could be created: clients that check it will reject all certificates.",
        "birthmark doctor",
        "birthmark_crl_expiry_timestamp_seconds - time() < {crl_ends_s}",
        "birthmark_crl_expiry_timestamp_seconds",
        timedelta(minutes=10),
    ): _lists,
    AlertRule(
        "server-certificate-ends",
        _CRITICAL,
        "The server's certificate expires soon and was not renewed.",
        "birthmark server status",
        _END + '{{of="server"}} - time() < {server_ends_s}',
        _END,
        timedelta(minutes=10),
    ): _server,
    AlertRule(
        "clock-jumped",
        _WARNING,
        "The clock of the server's machine was changed: time limits may expire too early.",
        "timedatectl",
        "birthmark_clock_steady == 0",
        "birthmark_clock_steady",
    ): _clock,
    AlertRule(
        "clock-wrong",
        _WARNING,
        "A machine's clock and the database's clock differ: time limits expire at a different time there.",
        "timedatectl",
        "abs(birthmark_clock_offset_seconds) > {clock_off_s}",
        "birthmark_clock_offset_seconds",
        timedelta(minutes=1),
    ): _clock_off,
    AlertRule(
        "disk-full",
        _CRITICAL,
        "The disk of the data directory is nearly full: a server that cannot write refuses everybody.",
        "df -h .",
        "birthmark_disk_free_ratio < {disk_free}",
        "birthmark_disk_free_ratio",
        timedelta(minutes=1),
    ): _disk,
    AlertRule(
        "outbox-behind",
        _WARNING,
        "Committed events are not delivered: a worker or the bus is unavailable.",
        "birthmark server status",
        "birthmark_outbox_age_seconds > {behind_s}",
        "birthmark_outbox_age_seconds",
    ): _outbox,
    AlertRule(
        "webhook-failing",
        _WARNING,
        "A webhook receiver accepts no events.",
        "birthmark webhook ls",
        "birthmark_webhook_failing_seconds > {behind_s}",
        "birthmark_webhook_failing_seconds",
    ): _failing,
}
RULES: Mapping[str, AlertRule] = {rule.name: rule for rule in CATALOGUE}
_BY_CODE = frozenset({"renewal-refused", "enrollment-refused"})
"""Rules whose examples are refusal codes, the most frequent first."""


def code_of(alert: Alert) -> str:
    """Return the most frequent refusal code of an alert; empty for other alerts."""
    if alert.rule == "refusal-spike":
        return alert.subject
    if alert.rule == "identity-contested":
        return CONTESTED
    return alert.examples[0] if alert.rule in _BY_CODE and alert.examples else ""


def fix_of(alert: Alert) -> str:
    """Return the next command for an alert."""
    if code := code_of(alert):
        return f"birthmark why --code {shlex.quote(code)}"
    return "" if (rule := RULES.get(alert.rule)) is None else rule.fix


def found(readings: Readings, limits: Thresholds, off: Sequence[str] = ()) -> list[AlertFinding]:
    """Return the findings of all rules except those in `off`."""
    return [one for rule, judge in CATALOGUE.items() if rule.name not in off for one in judge(readings, limits)]


def step(alert: Alert | None, finding: AlertFinding | None, rule: AlertRule, now: datetime) -> Alert | None:
    """Return the next state of an alert, with a finding or without one; None if the alert no longer exists.

    A raised alert resolves after a time without findings; a pending one disappears at once.
    """
    if finding is not None:
        since = now if alert is None else alert.seen_at
        raised = alert.raised_at if alert is not None else None
        if raised is None and now - since >= rule.holds:
            raised = now
        said = (False, False) if alert is None else (alert.is_told, alert.is_hushed)
        words = (rule.severity, finding.detail, finding.count, finding.examples)
        return Alert(finding.rule, finding.subject, *words, since, raised, None, *said)
    if alert is None or alert.raised_at is None:
        return None
    if alert.missed_at is None:
        return replace(alert, missed_at=now)
    return alert if now - alert.missed_at < max(_CALM, rule.holds) else None


def decide_notification(was: Alert | None, became: Alert | None, *, is_quiet: bool) -> tuple[Alert | None, str]:
    """Return the next state of an alert and its notification: `RAISED`, `OVER`, or none.

    While `is_quiet`, only the end of an alert that was already notified is sent. An alert that was notified before is
    notified again when the quiet period ends, as a reminder.
    """
    if became is None:
        return None, OVER if was is not None and was.is_told else ""
    if became.raised_at is None:
        return became, ""
    if is_quiet:
        return replace(became, is_hushed=became.is_told), ""
    if became.is_told and not became.is_hushed:
        return became, ""
    return replace(became, is_told=True, is_hushed=False), RAISED


def is_silenced(alert: Alert, silences: Sequence[Silence], now: datetime) -> bool:
    """Return whether an active silence covers the alert."""
    fitting = (one for one in silences if one.rule == alert.rule and fnmatchcase(alert.subject, one.subject))
    return any(one.until > now for one in fitting)


def _ends(subject: str, expiry: UpcomingExpiry, now: datetime) -> str:
    days = (expiry.at - now).total_seconds() / 86400
    when = f"in {days:.0f} days" if days >= 1 else f"at {expiry.at:%Y-%m-%d %H:%M} UTC"
    return f"{subject} {expiry.name} expires {when}" if days > 0 else f"{subject} {expiry.name} has ended"


def _by_machine(
    readings: Iterable[MachineReading], badness: Callable[[MachineReading], Any]
) -> Iterator[tuple[MachineReading, tuple[str, ...]]]:
    """Yield the worst reading of each machine with the names of its affected workers."""
    machines: dict[str, list[MachineReading]] = {}
    for one in readings:
        machines.setdefault(one.machine, []).append(one)
    for _, of in sorted(machines.items()):
        yield min(of, key=badness), tuple(sorted(one.worker for one in of))


def _most(counts: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(sorted(counts, key=lambda one: (-counts[one], one))[:_SOME])
