"""`birthmark device follow` and `device move`: poll devices until all have reached a state."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, TypeAlias, TypeVar

import typer

from birthmark.cli.device_enroll_shipment import Shipment
from birthmark.cli.options.duration import parse_within
from birthmark.cli.output.bulk_summary import BulkSummary, print_pause
from birthmark.cli.output.command_output import INTERRUPTED, SOME_ROWS_REFUSED, again
from birthmark.cli.output.table import format_count, text_of
from birthmark.clock_and_entropy import SystemClock
from birthmark.durations import FORMS
from birthmark.fleet.device_migration import MigrationProgress, Move, Pair, TakenAtDestinationError
from birthmark.fleet.device_onboarding_stages import DeviceProgress, Goal, StatusSource, iter_progress
from birthmark.fleet.enrollment_rollback_journal import JournalOutcome
from birthmark.fleet.enrollment_target import EnrollmentRequest, TargetOutcome
from birthmark.untrusted_json_and_text import printable

_LOOK_S = 2.0
_PATIENCE = timedelta(minutes=10)
_NAMED = 3
Row = TypeVar("Row")
Keep: TypeAlias = Callable[[Mapping[str, Any]], None]
"""Callback that adds a device's outcome to the reports."""


@dataclass(frozen=True, slots=True)
class PatienceOptions:
    """Polling timeout options."""

    timeout: Annotated[
        timedelta | None,
        typer.Option(parser=parse_within, metavar="DURATION", help=f"Maximum time to wait: {FORMS}. Default: 10m."),
    ] = None

    @property
    def seconds(self) -> float:
        return (self.timeout or _PATIENCE).total_seconds()


def told_and_kept(tally: BulkSummary, keep: Keep) -> Callable[[JournalOutcome], None]:
    """Return a callback that reports the outcome of an entry that is not a device."""

    def tell(outcome: JournalOutcome) -> None:
        tally.add(outcome)
        keep(outcome.as_row())

    return tell


def follow(
    target: StatusSource, shipment: Shipment, goal: Goal | None, patience: PatienceOptions, keep: Keep, *, as_json: bool
) -> None:
    """Print the state of each device of a list; with a goal, poll until all reach it or the timeout expires."""
    tally = BulkSummary(as_json=as_json)
    wishes = list(shipment.wishes(told_and_kept(tally, keep)))
    found: dict[str, DeviceProgress] = {}

    def look(left: Sequence[EnrollmentRequest]) -> Iterator[tuple[EnrollmentRequest, bool]]:
        for wish, stand in zip(left, iter_progress(target, left, says=print_pause), strict=True):
            found[wish.device_id] = stand
            yield wish, goal is None or stand.reached(goal)

    try:
        is_reached = _until(look, wishes, patience.seconds if goal is not None else 0)
    finally:  # print results in any case
        if as_json:
            _print(stand.as_row() for stand in found.values())
        thumbprints = {wish.device_id: wish.certificate.thumbprint.hex() for wish in wishes}
        for name, stand in found.items():
            row = {"device": stand.device_id, "outcome": stand.standing.value, "cause": stand.detail}
            keep(row | {"thumbprint": thumbprints[name]})
        tally.show_refusals()
        _show({stand.device_id: (stand.standing.value, stand.detail) for stand in found.values()}, target.description)
    if tally.has_refusals or not is_reached:
        raise typer.Exit(SOME_ROWS_REFUSED)


def move(
    moving: Move,
    pairs: Sequence[Pair],
    patience_s: float,
    tally: BulkSummary,
    options: tuple[str, str],
    *,
    keep: Keep,
    as_json: bool,
) -> None:
    """Move devices; with `patience_s`, poll until all are moved or the timeout expires.

    `tally` has the rejected list entries, and gets those of the devices. `options` are the source and destination
    options of `device ls`.
    """
    found: dict[str, MigrationProgress] = {}

    def look(left: Sequence[Pair]) -> Iterator[tuple[Pair, bool]]:
        for pair, progress in zip(left, moving.run_pass(left), strict=True):
            found[pair[1].device_id] = progress
            yield pair, progress.moved.value != "waiting"

    try:
        is_over = _until(look, pairs, patience_s)
    finally:  # print results in any case
        for refusal in filter(None, (progress.refusal for progress in found.values())):
            refusal.add_facts(options=options[isinstance(refusal, TakenAtDestinationError)], again=again())
        if as_json:
            _print(progress.as_row() for progress in found.values())
        thumbprints = {after.device_id: after.certificate.thumbprint.hex() for _, after in pairs}
        for name, progress in found.items():
            row = {"outcome": progress.moved.value, "cause": progress.detail, "thumbprint": thumbprints[name]}
            keep(row | progress.as_row())
            if progress.refusal is not None:
                tally.add(JournalOutcome(progress.device_id, None, TargetOutcome.REFUSED, progress.refusal))
        tally.show_refusals()
        where = f"{moving.source.description} to {moving.destination.description}"
        # The reason for each rejection is already printed.
        _show({one.device_id: (one.moved.value, "" if one.refusal else one.detail) for one in found.values()}, where)
    if tally.has_refusals or not is_over:
        raise typer.Exit(SOME_ROWS_REFUSED)


def _until(look: Callable[[Sequence[Row]], Iterable[tuple[Row, bool]]], rows: Sequence[Row], patience_s: float) -> bool:
    """Check all rows, then poll those that are not complete; return whether all are."""
    now = SystemClock().monotonic
    deadline, left, said = now() + patience_s, list(rows), -1
    while True:
        try:
            left = [row for row, is_there in look(left) if not is_there]
            if not left or now() >= deadline:
                return not left
            if len(left) != said:
                said = len(left)
                there = format_count(len(rows) - said, "device")
                typer.echo(f"{there} done, waiting for {said}; stop with Ctrl-C.", err=True)
            time.sleep(min(_LOOK_S, max(0.0, deadline - now())))
        except KeyboardInterrupt as ending:
            typer.echo("Stopped; run it again to continue.", err=True)
            raise typer.Exit(INTERRUPTED) from ending


def _print(rows: Iterable[dict[str, object]]) -> None:
    for row in rows:
        typer.echo(json.dumps(row))


def _show(found: dict[str, tuple[str, str]], where: str) -> None:
    """Print the number of devices per state, and the first few of each."""
    counts = Counter(standing for standing, _ in found.values())
    for standing in counts:
        named = [(name, detail) for name, (kind, detail) in found.items() if kind == standing][:_NAMED]
        more = f" and {counts[standing] - len(named)} more" if counts[standing] > len(named) else ""
        said = ", ".join(f"{name} ({detail})" if detail else name for name, detail in named)
        typer.echo(f"  {text_of(standing)}: {printable(said)}{more}", err=True)
    summary = ", ".join(f"{count} {text_of(standing)}" for standing, count in counts.most_common())
    typer.echo(f"{where}: {summary or 'nothing to look at'}.", err=True)
