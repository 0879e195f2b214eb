"""What a bulk command tells at its end: how many of each outcome, and refusals of one kind as one."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import typer

from birthmark.cli.common import in_words, tell_row
from birthmark.cli.table import counted
from birthmark.errors import BirthmarkError
from birthmark.fleet.journal import JournalOutcome
from birthmark.fleet.target import Change, TargetOutcome
from birthmark.untrusted_text import printable

_NAMED = 3
_SHOWN, _LISTED = 5, 20
_SAID = {
    TargetOutcome.WOULD_CREATE: "would be created",
    TargetOutcome.WOULD_UPDATE: "would be updated",
    TargetOutcome.WOULD_TAKE_BACK: "would be taken back",
}


@dataclass(slots=True)
class _Kind:
    """Refusals told as one: the first of them, how many, and whom it met first."""

    error: BirthmarkError
    count: int = 0
    named: list[str] = field(default_factory=list)


@dataclass(slots=True)
class BulkSummary:
    """Counts outcomes; with `as_json` each is printed at once, else refusals wait for `finish`."""

    as_json: bool
    to: str | None = None
    """Which of several targets this is."""
    counts: Counter[TargetOutcome] = field(default_factory=Counter)
    _differing: dict[str, list[tuple[str, Change]]] = field(default_factory=dict)
    """By what differs from the record that was there, the first that it did for."""
    _differences: Counter[str] = field(default_factory=Counter)
    _refused: dict[tuple[str, ...], _Kind] = field(default_factory=dict)
    _kinds: Counter[str] = field(default_factory=Counter)
    """Of each code how many kinds: past the first few, whatever differs is one more."""

    def add(self, outcome: JournalOutcome) -> None:
        self.counts[outcome.done] += 1
        for change in outcome.difference:
            self._differences[change.what] += 1
            if len(named := self._differing.setdefault(change.what, [])) < _NAMED:
                named.append((outcome.device_id, change))
        if self.as_json:
            typer.echo(json.dumps(outcome.as_row() | ({} if self.to is None else {"to": self.to})))
        elif (error := outcome.refusal) is not None:
            facts = error.facts  # one wrong signer, one missing policy, one key of the template
            about = facts.get("reason") or facts.get("detail") or facts.get("key") or ""
            kind = (error.code, error.explain_fix(), error.facts.get("thumbprint", ""), about)
            self._count(kind, error, outcome.device_id)

    def _count(self, kind: tuple[str, ...], error: BirthmarkError, device_id: str) -> None:
        if kind not in self._refused and self._kinds[error.code] >= _SHOWN:
            kind = (error.code,)
        if kind not in self._refused:
            self._refused[kind] = _Kind(error)
            self._kinds[error.code] += 1
        refused = self._refused[kind]
        refused.count += 1
        if len(refused.named) < _NAMED:
            refused.named.append(device_id)

    @property
    def has_refusals(self) -> bool:
        return self.counts[TargetOutcome.REFUSED] > 0

    @property
    def has_new(self) -> bool:
        """Say whether something was, or would be, put on record."""
        return bool(self.counts[TargetOutcome.CREATED] or self.counts[TargetOutcome.WOULD_CREATE])

    def show_refusals(self) -> None:
        """Print each kind of refusal once: how many, whom, why, and what to do."""
        for kind in self._refused.values():
            more = f" and {kind.count - _NAMED} more" if kind.count > _NAMED else ""
            named = printable(", ".join(kind.named)) + more
            typer.echo(f"Refused {counted(kind.count, 'device')}: {named}\n  {in_words(kind.error)}", err=True)

    def show_differences(self) -> None:
        """Print what was, or would be, changed on record: of each kind how many, and the first few."""
        for what, named in self._differing.items():
            typer.echo(f"{what} of {counted(self._differences[what], 'device')}:", err=True)
            for device_id, change in named:
                typer.echo(
                    f"  {printable(device_id)}: {printable(change.present)} -> {printable(change.wanted)}", err=True
                )
            if (rest := self._differences[what] - len(named)) > 0:
                typer.echo(f"  and {rest} more", err=True)

    def summary(self) -> str:
        told = (f"{self.counts[done]} {_SAID.get(done, done.value)}" for done in TargetOutcome if done in self.counts)
        return ", ".join(told) or "nothing to do"


@dataclass(slots=True)
class Refusals:
    """Refusals of a list's entries: the first of each kind are shown as they come, the others are counted.

    With `as_json` each is printed.
    """

    as_json: bool
    count: int = 0
    _more: dict[str, list[str]] = field(default_factory=dict)
    _kinds: Counter[str] = field(default_factory=Counter)

    def add(self, error: BirthmarkError, row: Mapping[str, Any]) -> None:
        """Show one, or count it; `row` says which entry it is."""
        self.count += 1
        self._kinds[error.code] += 1
        if self.as_json or self._kinds[error.code] <= _SHOWN:
            tell_row(error, row, as_json=self.as_json)
        elif len(more := self._more.setdefault(error.code, [])) < _LISTED:
            more.append(" ".join(map(str, row.values())))

    def tell_rest(self) -> None:
        """Say how many more there were of each kind, and which."""
        for code, named in self._more.items():
            rest = self._kinds[code] - _SHOWN
            others = f" and {rest - len(named)} more; --json tells each" if rest > len(named) else ""
            noun = "entry" if rest == 1 else "entries"
            typer.echo(f"Refused {code} as well: {noun} {printable(', '.join(named))}{others}", err=True)


def say_pause(seconds: float) -> None:
    """Say why nothing moves."""
    typer.echo(f"The target asks to come more slowly: waiting {seconds:.0f} s. Ctrl-C ends it.", err=True)
