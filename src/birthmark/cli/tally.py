"""What a bulk command tells at its end: how many of each outcome, and refusals of one kind as one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import typer

from birthmark.cli.printable import counted
from birthmark.fleet.journal import Outcome
from birthmark.fleet.target import Done
from birthmark.text import printable

_NAMED = 3
_SAID = {Done.WOULD_CREATE: "would be created", Done.WOULD_UPDATE: "would be updated"}


@dataclass(slots=True)
class Tally:
    """Counts outcomes; with `as_json` each is printed at once, else refusals wait for `finish`."""

    as_json: bool
    counts: dict[Done, int] = field(default_factory=dict)
    _refused: dict[tuple[str, str, str], list[Outcome]] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        self.counts[outcome.done] = self.counts.get(outcome.done, 0) + 1
        if self.as_json:
            typer.echo(json.dumps(outcome.as_row()))
        elif outcome.done is Done.REFUSED:
            alike = (outcome.code or "", outcome.fix or "", outcome.about)
            self._refused.setdefault(alike, []).append(outcome)

    @property
    def has_refusals(self) -> bool:
        return self.counts.get(Done.REFUSED, 0) > 0

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def show_refusals(self) -> None:
        """Print each kind of refusal once: how many, whom, why, and what to do."""
        for alike in self._refused.values():
            first = alike[0]
            typer.echo(f"Refused {counted(len(alike), 'device')}: {printable(_named(alike))}", err=True)
            typer.echo(f"  {printable(first.message or '')}", err=True)
            typer.echo(f"  Why: {printable(first.cause or '')}", err=True)
            typer.echo(f"  Fix: {printable(first.fix or '')}\n  Code: {first.code}", err=True)

    def summary(self) -> str:
        told = (f"{self.counts[done]} {_SAID.get(done, done.value)}" for done in Done if done in self.counts)
        return ", ".join(told) or "nothing to do"


def _named(alike: Sequence[Outcome]) -> str:
    names = ", ".join(outcome.device_id for outcome in alike[:_NAMED])
    return names + (f" and {len(alike) - _NAMED} more" if len(alike) > _NAMED else "")
