"""What a bulk command tells at its end: how many of each outcome, and refusals of one kind as one."""

import json
from collections import Counter
from dataclasses import dataclass, field

import typer

from birthmark.cli.common import in_words
from birthmark.cli.printable import counted
from birthmark.errors import BirthmarkError
from birthmark.fleet.journal import Outcome
from birthmark.fleet.target import Change, Done
from birthmark.text import printable

_NAMED = 3
_SAID = {
    Done.WOULD_CREATE: "would be created",
    Done.WOULD_UPDATE: "would be updated",
    Done.WOULD_TAKE_BACK: "would be taken back",
}


@dataclass(slots=True)
class Tally:
    """Counts outcomes; with `as_json` each is printed at once, else refusals wait for `finish`."""

    as_json: bool
    to: str | None = None
    """Which of several targets this is."""
    counts: Counter[Done] = field(default_factory=Counter)
    _differing: dict[str, list[tuple[str, Change]]] = field(default_factory=dict)
    """By what differs from the record that was there, the first that it did for."""
    _differences: Counter[str] = field(default_factory=Counter)
    _refused: dict[tuple[str, ...], tuple[BirthmarkError, list[str]]] = field(default_factory=dict)
    """The first refusal of each kind, and whom it met."""

    def add(self, outcome: Outcome) -> None:
        self.counts[outcome.done] += 1
        for change in outcome.difference:
            self._differences[change.what] += 1
            if len(named := self._differing.setdefault(change.what, [])) < _NAMED:
                named.append((outcome.device_id, change))
        if self.as_json:
            typer.echo(json.dumps(outcome.as_row() | ({} if self.to is None else {"to": self.to})))
        elif (error := outcome.refusal) is not None:
            about = error.facts.get("reason") or error.facts.get("detail") or ""  # one wrong signer, one missing policy
            kind = (error.code, error.explain_fix(), error.facts.get("thumbprint", ""), about)
            self._refused.setdefault(kind, (error, []))[1].append(outcome.device_id)

    @property
    def has_refusals(self) -> bool:
        return self.counts[Done.REFUSED] > 0

    def show_refusals(self) -> None:
        """Print each kind of refusal once: how many, whom, why, and what to do."""
        for error, names in self._refused.values():
            named = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if names[_NAMED:] else "")
            typer.echo(f"Refused {counted(len(names), 'device')}: {printable(named)}\n  {in_words(error)}", err=True)

    def show_differences(self) -> None:
        """Print what was, or would be, changed on record: of each kind how many, and the first few."""
        for what, named in self._differing.items():
            typer.echo(f"{what} of {counted(self._differences[what], 'device')}:", err=True)
            for device_id, change in named:
                typer.echo(
                    f"  {printable(device_id)}: {printable(change.present)} -> {printable(change.wanted)}", err=True
                )

    def summary(self) -> str:
        told = (f"{self.counts[done]} {_SAID.get(done, done.value)}" for done in Done if done in self.counts)
        return ", ".join(told) or "nothing to do"
