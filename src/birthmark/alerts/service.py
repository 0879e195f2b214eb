"""Alerts in the database: raised from findings, notified, resolved, and silenced.

One worker evaluates for all. Each evaluation is one commit, conditional on what was read, with an audit row per raised
or resolved alert. Event subscribers (`feed`) get one notification for all of them, and another when they resolve.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeAlias

from birthmark.alerts import store
from birthmark.alerts.model import Alert, AlertFinding, AlertRule, Silence
from birthmark.alerts.rules import OVER, RAISED, RULES, decide_notification, fix_of, is_silenced, step
from birthmark.clock_and_entropy import Clock
from birthmark.errors import ConflictError, InvalidRequestError, NotFoundError
from birthmark.store import Changes, Database, to_micros
from birthmark.untrusted_json_and_text import printable

__all__ = ["OVER", "RAISED", "Alerts"]
Said: TypeAlias = tuple[str, Alert]
"""Notification: `alert.raised` or `alert.over`, with the alert."""
_CLAIM = timedelta(seconds=60)
_NAME = "judge"
_MOST_SILENCES = 200
_LONGEST = timedelta(days=30)


class RuleUnknownError(NotFoundError):
    """The alert rule does not exist."""

    code = "alert.rule_unknown"
    message = "Alert rule {rule} does not exist"
    fix = "List alert rules: `birthmark alert rules`"
    rule: str


class SilenceMissingError(NotFoundError):
    """The silence does not exist."""

    code = "alert.silence_missing"
    message = "Alert rule {rule} is not silenced for {subject}"
    fix = "List silences: `birthmark alert silences`"
    rule: str
    subject: str


class SilenceTooLongError(InvalidRequestError):
    """The silence is too long."""

    code = "alert.silence_too_long"
    cause = "A silence can last at most {days} days, so that its reason is reviewed regularly."
    fix = "Use a shorter lifetime: `birthmark alert silence {rule} --lifetime {days}d --reason 'why'`"
    rule: str
    days: int


class TooManySilencesError(ConflictError):
    """The server has the maximum number of silences."""

    code = "alert.too_many_silences"
    cause = "The server has {count} silences, the maximum."
    fix = "End a silence that you no longer need. List silences: `birthmark alert silences`"
    for_a_person = "only an administrator knows which silences are unneeded"
    count: int


@dataclass(frozen=True, slots=True)
class Alerts:
    """All alerts and silences; `me` is this worker."""

    database: Database = field(repr=False)
    clock: Clock = field(repr=False)
    me: str = "main"

    async def all(self) -> Sequence[Alert]:
        """Return the raised, unresolved alerts by rule and subject."""
        return [one for one in await self._known() if one.raised_at is not None]

    async def silences(self) -> Sequence[Silence]:
        """Return the active silences, sorted by rule and subject."""
        now = self.clock.now()
        rows = await self.database.all(store.ALL_SILENCES)
        return sorted(
            [one for one in map(store.SILENCES.of, rows) if one.until > now], key=lambda one: (one.rule, one.subject)
        )

    async def silence(
        self, rule: str, subject: str, lifetime: timedelta, reason: str, *, by: str, actor: str
    ) -> Silence:
        """Silence a rule, or its matching subjects, for a lifetime.

        Raise `RuleUnknownError`, `SilenceTooLongError`, `TooManySilencesError`.
        """
        if rule not in RULES:
            raise RuleUnknownError(rule=rule[:64])
        if lifetime > _LONGEST:
            raise SilenceTooLongError(rule=rule, days=_LONGEST.days)
        now = self.clock.now()
        there = await self.silences()
        if len(there) >= _MOST_SILENCES:
            raise TooManySilencesError(count=len(there))
        made = Silence(rule, subject, now + lifetime, by, reason, now)
        changes = Changes().run(store.PURGE_SILENCES, now=to_micros(now))
        changes.run(store.PUT_SILENCE, **store.SILENCES.row(made))
        told = {"of": subject, "until": made.until.isoformat(), "reason": reason}
        await self.database.commit(changes.audit(actor, "alert.silence", rule, **told))
        return made

    async def unsilence(self, rule: str, subject: str, *, actor: str) -> None:
        """Remove a silence. Raise `SilenceMissingError`."""
        missing = SilenceMissingError(rule=rule[:64], subject=subject[:64])
        changes = Changes().run(store.REMOVE_SILENCE, expect=1, otherwise=missing, rule=rule, subject=subject)
        await self.database.commit(changes.audit(actor, "alert.unsilence", rule, of=subject))

    async def get_rule(self, rule: str) -> tuple[AlertRule, Sequence[Alert], Sequence[Silence]]:
        """Return a rule, its unresolved alerts, and its silences. Raise `RuleUnknownError`."""
        if (known := RULES.get(rule)) is None:
            raise RuleUnknownError(rule=rule[:64])
        raised = [one for one in await self.all() if one.rule == rule]
        return known, raised, [one for one in await self.silences() if one.rule == rule]

    async def claim(self, lasts: timedelta = _CLAIM) -> bool:
        """Claim the evaluation for this worker for a time; return whether it succeeded."""
        now = self.clock.now()
        changes = (
            Changes()
            .run(store.BEGIN, name=_NAME, owner=self.me, owned_until=0)
            .run(
                store.CLAIM,
                expect=1,
                otherwise=ConflictError(),
                key_name=_NAME,
                key_owner=self.me,
                key_now=to_micros(now),
                owner=self.me,
                owned_until=to_micros(now + lasts),
            )
        )
        try:
            await self.database.commit(changes)
        except ConflictError:
            return False
        return True

    async def judge(self, findings: Sequence[AlertFinding]) -> Sequence[Said]:
        """Update the alerts to these findings in one commit; return the notifications."""
        now, silences = self.clock.now(), await self.silences()
        return await self._follow(await self._known(), [_clean(one) for one in findings], silences, now)

    async def _follow(
        self, alerts: Sequence[Alert], findings: Sequence[AlertFinding], silences: Sequence[Silence], now: datetime
    ) -> Sequence[Said]:
        there = {(one.rule, one.subject): one for one in alerts}
        found = {(one.rule, one.subject): one for one in findings}
        changes, said = Changes(), list[Said]()
        for key in sorted(there.keys() | found.keys()):
            was = there.get(key)
            rule = RULES.get(key[0])  # earlier versions had other rules
            became = None if rule is None else step(was, found.get(key), rule, now)
            became, word = decide_notification(
                was, became, is_quiet=became is not None and is_silenced(became, silences, now)
            )
            self._change(changes, was, became)
            told = became or was
            if word and told is not None:
                changes.audit("server", word, told.subject, **_said(told))
                said.append((word, told))
        if not changes.writes:
            return []
        try:
            await self.database.commit(changes)
        except ConflictError:  # another worker evaluated it
            return []
        return said

    def _change(self, changes: Changes, was: Alert | None, became: Alert | None) -> None:
        if was == became:
            return
        if was is None:
            assert became is not None  # noqa: S101 - one of them exists
            changes.run(store.ADD, **store.ALERTS.row(became))
            return
        row = store.ALERTS.row(was)
        key = {name: row[name] for name in store.AS_READ}
        if became is None:
            changes.run(store.REMOVE, expect=1, otherwise=ConflictError(), **key)
            return
        now = store.ALERTS.row(became)
        values = {name: now[name] for name in store.STATE}
        where = {f"key_{name}": value for name, value in key.items()}
        changes.run(store.CHANGE, expect=1, otherwise=ConflictError(), **values, **where)

    async def _known(self) -> list[Alert]:
        rows = [store.ALERTS.of(row) for row in await self.database.all(store.ALL)]
        return sorted(rows, key=lambda one: (one.rule, one.subject))


def _clean(finding: AlertFinding) -> AlertFinding:
    """Return the finding with text that every database accepts; invalid text would block all other alerts."""
    subject, detail = printable(finding.subject), printable(finding.detail)
    return replace(finding, subject=subject, detail=detail, examples=tuple(map(printable, finding.examples)))


def _said(alert: Alert) -> dict[str, object]:
    return {
        "rule": alert.rule,
        "severity": alert.severity.value,
        "says": alert.detail,
        "count": alert.count,
        "examples": list(alert.examples),
        "since": alert.seen_at.isoformat(),
        "fix": fix_of(alert),
    }
