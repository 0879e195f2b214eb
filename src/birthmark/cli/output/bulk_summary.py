"""Summary of a bulk command: number of each outcome, and refusals grouped by kind."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import typer

from birthmark.cli.output.command_output import format_error, print_row_error
from birthmark.cli.output.table import format_count
from birthmark.errors import BirthmarkError
from birthmark.fleet.enrollment_rollback_journal import JournalOutcome
from birthmark.fleet.enrollment_target import Change, TargetOutcome
from birthmark.untrusted_json_and_text import printable

_NAMED = 3
_SHOWN, _LISTED = 5, 20
_SAID = {
    TargetOutcome.WOULD_CREATE: "would be created",
    TargetOutcome.WOULD_UPDATE: "would be updated",
    TargetOutcome.TAKEN_BACK: "undone",
    TargetOutcome.WOULD_TAKE_BACK: "would be undone",
}


@dataclass(slots=True)
class _Kind:
    """Refusals of one kind: the first error, the number, and the first affected devices."""

    error: BirthmarkError
    count: int = 0
    named: list[str] = field(default_factory=list)


@dataclass(slots=True)
class BulkSummary:
    """Counts outcomes; with `as_json` each is printed at once, otherwise refusals are printed by `finish`."""

    as_json: bool
    to: str | None = None
    """Name of this target, if there are several."""
    counts: Counter[TargetOutcome] = field(default_factory=Counter)
    _differing: dict[str, list[tuple[str, Change]]] = field(default_factory=dict)
    """First devices with a difference to the existing record, by differing field."""
    _differences: Counter[str] = field(default_factory=Counter)
    _refused: dict[tuple[str, ...], _Kind] = field(default_factory=dict)
    _kinds: Counter[str] = field(default_factory=Counter)
    """Number of kinds per error code; after the first few, all others form one kind."""

    def add(self, outcome: JournalOutcome) -> None:
        self.counts[outcome.done] += 1
        for change in outcome.difference:
            self._differences[change.what] += 1
            if len(named := self._differing.setdefault(change.what, [])) < _NAMED:
                named.append((outcome.device_id, change))
        if self.as_json:
            typer.echo(json.dumps(outcome.as_row() | ({} if self.to is None else {"to": self.to})))
        elif (error := outcome.refusal) is not None:
            facts = error.facts  # one wrong signer, missing policy or template key
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
        """Return whether a record was, or would be, created."""
        return bool(self.counts[TargetOutcome.CREATED] or self.counts[TargetOutcome.WOULD_CREATE])

    def show_refusals(self) -> None:
        """Print each kind of refusal once: number, affected devices, cause and fix."""
        for kind in self._refused.values():
            more = f" and {kind.count - _NAMED} more" if kind.count > _NAMED else ""
            named = printable(", ".join(kind.named)) + more
            typer.echo(f"Refused {format_count(kind.count, 'device')}: {named}\n  {format_error(kind.error)}", err=True)

    def show_differences(self) -> None:
        """Print the changes that were, or would be, made: the number of each kind, and the first few."""
        for what, named in self._differing.items():
            typer.echo(f"{what} of {format_count(self._differences[what], 'device')}:", err=True)
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
    """Refusals of a list's entries: the first of each kind are printed at once, the others are counted.

    With `as_json` each is printed.
    """

    as_json: bool
    count: int = 0
    _more: dict[str, list[str]] = field(default_factory=dict)
    _kinds: Counter[str] = field(default_factory=Counter)

    def add(self, error: BirthmarkError, row: Mapping[str, Any]) -> None:
        """Print or count a refusal; `row` identifies the entry."""
        self.count += 1
        self._kinds[error.code] += 1
        if self.as_json or self._kinds[error.code] <= _SHOWN:
            print_row_error(error, row, as_json=self.as_json)
        elif len(more := self._more.setdefault(error.code, [])) < _LISTED:
            more.append(" ".join(map(str, row.values())))

    def print_remaining(self) -> None:
        """Print the number of further refusals of each kind, and their entries."""
        for code, named in self._more.items():
            rest = self._kinds[code] - _SHOWN
            others = f" and {rest - len(named)} more; --json lists each" if rest > len(named) else ""
            noun = "entry" if rest == 1 else "entries"
            typer.echo(f"Refused {code} as well: {noun} {printable(', '.join(named))}{others}", err=True)


def print_pause(seconds: float) -> None:
    """Print that the target's rate limit causes a pause."""
    typer.echo(f"The target limits the request rate: waiting {seconds:.0f} s. Stop with Ctrl-C.", err=True)
