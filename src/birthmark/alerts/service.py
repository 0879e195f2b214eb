"""Alerts as the database has them: what is found becomes one, is said, and is over; who wants to hear nothing of it.

One worker judges for all. Each change of an alert is conditional on what was read, and is said by an audit row of the
same commit: who is told of what happens (`feed`) is told of it once, and once more when it is over.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from birthmark.alerts import store
from birthmark.alerts.model import Alert, Finding, Silence
from birthmark.alerts.rules import RULES, is_silenced, step
from birthmark.clock import Clock
from birthmark.errors import ConflictError, InvalidRequestError, NotFoundError
from birthmark.store import Changes, Database, to_micros

RAISED, OVER = "alert.raised", "alert.over"
_CLAIM = timedelta(seconds=60)
_NAME = "judge"
_MOST_SILENCES = 200
_LONGEST = timedelta(days=30)


class RuleUnknownError(NotFoundError):
    """There is no such rule."""

    code = "alert.rule_unknown"
    message = "There is no rule {rule}"
    fix = "Those there are: `birthmark alert rules`"
    rule: str


class SilenceMissingError(NotFoundError):
    """Nothing is silenced so."""

    code = "alert.silence_missing"
    message = "{rule} is not silenced for {subject}"
    fix = "What is silenced: `birthmark alert silences`"
    rule: str
    subject: str


class SilenceTooLongError(InvalidRequestError):
    """Longer than anybody remembers why."""

    code = "alert.silence_too_long"
    cause = "A silence lasts for {days} days at most: who made it has to be asked again."
    fix = "Give a shorter one: `birthmark alert silence {rule} --lifetime {days}d --reason 'why'`"
    rule: str
    days: int


class TooManySilencesError(ConflictError):
    """As many as there may be."""

    code = "alert.too_many_silences"
    cause = "There are {count} silences, and no more are made."
    fix = "End one that nobody needs: `birthmark alert silences`"
    for_a_person = "only a person knows which nobody needs"
    count: int


@dataclass(frozen=True, slots=True)
class Alerts:
    """All alerts and silences; `me` is this worker."""

    database: Database = field(repr=False)
    clock: Clock = field(repr=False)
    me: str = "main"

    async def all(self) -> Sequence[Alert]:
        """Return what was raised and is not over, by rule and subject."""
        return [one for one in await self._known() if one.raised_at is not None]

    async def silences(self) -> Sequence[Silence]:
        """Return the silences that last."""
        now = self.clock.now()
        rows = await self.database.all(store.ALL_SILENCES)
        return sorted(
            [one for one in map(store.SILENCES.of, rows) if one.until > now], key=lambda one: (one.rule, one.subject)
        )

    async def silence(
        self, rule: str, subject: str, lifetime: timedelta, reason: str, *, by: str, actor: str
    ) -> Silence:
        """Say nothing of a rule, or of the subjects that fit, for a while.

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
        """Say it again. Raise `SilenceMissingError`."""
        missing = SilenceMissingError(rule=rule[:64], subject=subject[:64])
        changes = Changes().run(store.REMOVE_SILENCE, expect=1, otherwise=missing, rule=rule, subject=subject)
        await self.database.commit(changes.audit(actor, "alert.unsilence", rule, of=subject))

    async def claim(self) -> bool:
        """Say whether this worker judges for the next while."""
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
                owned_until=to_micros(now + _CLAIM),
            )
        )
        try:
            await self.database.commit(changes)
        except ConflictError:
            return False
        return True

    async def judge(self, findings: Sequence[Finding]) -> Sequence[tuple[str, Alert]]:
        """Let alerts follow what was found now; return what was said: `alert.raised` and `alert.over`."""
        now, silences = self.clock.now(), await self.silences()
        known = {(one.rule, one.subject): one for one in await self._known()}
        found = {(one.rule, one.subject): one for one in findings}
        said: list[tuple[str, Alert]] = []
        for key in sorted(known.keys() | found.keys()):
            said += await self._follow(known.get(key), found.get(key), silences, now)
        return said

    async def _follow(
        self, was: Alert | None, finding: Finding | None, silences: Sequence[Silence], now: datetime
    ) -> Sequence[tuple[str, Alert]]:
        rule = (finding or was).rule  # type: ignore[union-attr] # one of them is there
        became = step(was, finding, RULES[rule], now) if rule in RULES else None  # one of an earlier version
        changes, said = Changes(), ""
        if became is not None and became.raised_at is not None and not became.is_told:
            if not is_silenced(became, silences, now):
                became, said = replace(became, is_told=True), RAISED
        elif became is None and was is not None and was.is_told:
            said = OVER
        if became == was:
            return []
        if was is None and became is not None:
            changes.run(store.ADD, **store.ALERTS.row(became))
        elif was is not None:
            self._change(changes, was, became)
        told = became or was
        assert told is not None  # noqa: S101 - one of them is there
        if said:
            changes.audit("server", said, told.subject, **_said(told))
        try:
            await self.database.commit(changes)
        except ConflictError:  # another worker judged meanwhile
            return []
        return [(said, told)] if said else []

    def _change(self, changes: Changes, was: Alert, became: Alert | None) -> None:
        row = store.ALERTS.row(was)
        key = {name: row[name] for name in ("rule", "subject", "seen_at", "is_told")}
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


def _said(alert: Alert) -> dict[str, object]:
    rule = RULES.get(alert.rule)
    return {
        "rule": alert.rule,
        "severity": alert.severity.value,
        "says": alert.detail,
        "count": alert.count,
        "examples": list(alert.examples),
        "since": alert.seen_at.isoformat(),
        "fix": "" if rule is None else rule.fix,
    }
