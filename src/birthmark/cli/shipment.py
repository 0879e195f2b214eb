"""Enroll a supplier's shipment: entries to wishes, with every outcome in a tally, also when the run is cut off."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import typer
from rich.console import Console
from rich.progress import track

from birthmark.cli.asking import CannotWorkError, device_with
from birthmark.cli.common import INTERRUPTED, SOME_ROWS_REFUSED, again, open_file, without
from birthmark.cli.manifest import entries_of
from birthmark.cli.printable import counted
from birthmark.cli.tally import Tally
from birthmark.clock import SystemClock
from birthmark.errors import BirthmarkError, InvalidRequestError
from birthmark.fleet.bulk import enroll_all, take_back_all
from birthmark.fleet.doubts import doubts_of
from birthmark.fleet.journal import TAKEN_BACK, Journal, Outcome, refused
from birthmark.fleet.report import Report, Run
from birthmark.fleet.target import Done, EnrollmentRequest, EnrollmentTarget
from birthmark.manifests.model import Entry
from birthmark.pki.certificates import Certificate

if TYPE_CHECKING:
    from birthmark.cli.enroll import DeviceOptions, RunOptions, TargetOptions, WriteOptions

Tell: TypeAlias = Callable[[Outcome], None]


class JournalNotNamedError(InvalidRequestError):
    """Nothing says what was done."""

    code = "enroll.journal_not_named"
    cause = "What --undo takes back stands in a journal, and no journal is named."
    fix = "Name the one that the run had: `{again} --journal run.journal`. Without one: `birthmark enroll remove NAME`"
    again: str = "?"


class NoCertificateError(InvalidRequestError):
    """The entry has no certificate."""

    code = "manifest.no_certificate"
    cause = "The entry of {unique_id} has no certificate; it cannot be enrolled by one."
    fix = (
        "Enroll the chip by the certificate that it holds itself, where it is at hand: "
        "`birthmark element cert --out chip.pem && birthmark enroll device --cert chip.pem`."
    )
    unique_id: str


@dataclass(frozen=True, slots=True)
class Shipment:
    """A manifest and how its entries are judged."""

    file: Path
    trust: Any
    total: int
    needs_common_name: bool
    force: bool
    quiet: bool

    def wishes(self, tell: Tell, *, edge: bool, policy: str | None) -> Iterator[EnrollmentRequest]:
        """Yield what is to be enrolled; what is not is told at once."""
        entries = entries_of(self.file, self.trust, quiet=True)
        console = Console(stderr=True)
        hidden = self.quiet or not console.is_terminal
        for entry in track(entries, "Enrolling", total=self.total, console=console, transient=True, disable=hidden):
            try:
                certificate = self._certificate_of(entry)
            except BirthmarkError as error:
                name = error.facts.get("unique_id") or f"entry {error.facts.get('place')}"
                thumbprint = None
                if isinstance(entry, Entry):
                    name, thumbprint = entry.device_id, entry.thumbprint
                tell(refused(name, thumbprint.hex() if thumbprint else None, error, again()))
            else:
                yield EnrollmentRequest(entry.device_id, certificate, is_edge=edge, policy=policy)

    def _certificate_of(self, entry: Entry | BirthmarkError) -> Certificate:
        """Return what an entry is enrolled by. Raise why it is not."""
        if isinstance(entry, BirthmarkError):
            raise entry
        certificate = entry.certificate
        if certificate is None:
            raise NoCertificateError(unique_id=entry.unique_id)
        doubts = doubts_of(certificate, SystemClock().now(), needs_common_name=self.needs_common_name)
        if doubts and not self.force:
            raise CannotWorkError(who=device_with(certificate), detail=" and ".join(doubts))
        return certificate


def enroll_shipment(
    target: EnrollmentTarget,
    shipment: Shipment,
    tally: Tally,
    how: "DeviceOptions",
    run: "RunOptions",
    *,
    dry_run: bool,
) -> None:
    """Enroll all of it and say what became of it, whatever ends the run."""
    belongs_to = target.identity if run.journal else ""
    with (
        Journal(run.journal, belongs_to, again=without("--journal", takes_value=True)) as kept,
        _told(tally, run, target, dry_run=dry_run) as tell,
    ):
        if kept.before:
            done = counted(kept.before, "outcome")
            typer.echo(f"An earlier run was cut off after {done}; the target says what is there.", err=True)
        wishes = shipment.wishes(tell, edge=how.edge, policy=how.policy)
        try:
            target.survey(shipment.total)
            enroll_all(target, wishes, kept, tell, update=how.update, dry_run=dry_run, again=again())
        except BaseException as ending:
            is_stopped = isinstance(ending, KeyboardInterrupt)
            said = "Stopped" if is_stopped else "Cut off"
            said += f" after {tally.counts.total()} of {counted(shipment.total, 'entry')}: {tally.summary()}"
            tally.show_refusals()
            typer.echo(f"{target.description}: {said}. Run it again to go on.", err=True)
            if is_stopped:
                raise typer.Exit(INTERRUPTED) from ending
            raise
    tally.show_refusals()
    typer.echo(f"{target.description}: {tally.summary()}.", err=True)


@contextmanager
def _told(tally: Tally, run: "RunOptions", target: EnrollmentTarget, *, dry_run: bool) -> Iterator[Tell]:
    """Give what takes an outcome to the one who reads and into the reports."""
    now = SystemClock().now
    of = Run(target.description, now(), dry_run=dry_run)
    with ExitStack() as files:
        takers = [tally.add, *(files.enter_context(Report(path, of, now)).add for path in run.report or ())]

        def tell(outcome: Outcome) -> None:
            for take in takers:
                take(outcome)

        yield tell


def take_back_shipment(where: "TargetOptions", writing: "WriteOptions", run: "RunOptions", tally: Tally) -> None:
    """Take back what the runs of a journal did, and say what became of it."""
    if run.journal is None:
        raise JournalNotNamedError(again=again())
    open_file(run.journal).close()
    target = where.open()
    with Journal(run.journal, target.identity, again=without("--journal", takes_value=True)) as kept:
        kept.ending = None
        count = sum(1 for _ in kept.written())
        writing.confirm(target, where.profile, count)
        with _told(tally, run, target, dry_run=writing.dry_run) as tell:
            there = partial(_tell_taken_back, tell, where)
            take_back_all(target, kept, there, dry_run=writing.dry_run, again=again())
        if not (writing.dry_run or tally.has_refusals):
            kept.ending = TAKEN_BACK
    tally.show_refusals()
    typer.echo(f"{target.description}: {tally.summary()}.", err=True)
    if where.is_azure and where.profile.is_local and tally.counts[Done.TAKEN_BACK]:
        typer.echo(
            "A device that registered meanwhile is still its hub's: `birthmark hub devices` shows them.", err=True
        )
    if tally.has_refusals:
        raise typer.Exit(SOME_ROWS_REFUSED)


def _tell_taken_back(tell: Tell, where: "TargetOptions", outcome: Outcome) -> None:
    if outcome.refusal is not None:
        profile = where.profile.profile_name
        to = "" if where.is_azure else " --to aws"
        outcome.refusal.add_facts(options=to if where.profile.is_local else f"{to} --profile {shlex.quote(profile)}")
    tell(outcome)
