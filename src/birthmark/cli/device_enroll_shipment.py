"""Bulk enrollment of a shipment; all outcomes are summarized, even if the run is interrupted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress, track

from birthmark.cli.input_files import open_file, read_text
from birthmark.cli.manifest import entries_of
from birthmark.cli.options.device_enrollment import CannotWorkError
from birthmark.cli.options.report import opened
from birthmark.cli.output.bulk_summary import BulkSummary, print_pause
from birthmark.cli.output.command_output import INTERRUPTED, SOME_ROWS_REFUSED, again, without
from birthmark.cli.output.table import format_count
from birthmark.clock_and_entropy import SystemClock
from birthmark.errors import BirthmarkError, InvalidRequestError
from birthmark.fleet.adaptive_concurrency import PacedTarget
from birthmark.fleet.bulk_enrollment import enroll_all, undo_all
from birthmark.fleet.enrollment_rollback_journal import (
    TAKEN_BACK,
    Journal,
    JournalOutcome,
    OtherTargetsJournalError,
    refused,
)
from birthmark.fleet.enrollment_target import EnrollmentRequest, EnrollmentTarget, TargetOutcome
from birthmark.fleet.enrollment_template import (
    EnrollmentTemplate,
    NameTakenTwiceError,
    TemplateInvalidError,
    check_name,
    parse_template,
)
from birthmark.fleet.template_value_validation import check_values
from birthmark.manifests.certificate_preflight_checks import Judge
from birthmark.manifests.duplicate_chips import Marks
from birthmark.manifests.manifest_entry import ManifestEntry

if TYPE_CHECKING:
    from birthmark.cli.options.device_enrollment import (
        DeviceOptions,
        RunOptions,
        TargetOptions,
        TargetsOptions,
        WriteOptions,
    )

Tell: TypeAlias = Callable[[JournalOutcome], None]


class JournalNotNamedError(InvalidRequestError):
    """No journal was specified."""

    code = "enroll.journal_not_named"
    cause = "The option --undo reverses the changes in a journal, but no journal was specified."
    fix = (
        "Pass the journal of the run: `{again} --journal run.journal`. Without a journal, remove each device: "
        "`birthmark device rm NAME`"
    )
    again: str = "?"


class NoCertificateError(InvalidRequestError):
    """The entry has no certificate."""

    code = "manifest.no_certificate"
    cause = "The entry of {unique_id} has no certificate and cannot be enrolled."
    fix = (
        "If you have the chip, enroll it with its own certificate: `birthmark chip cert --out chip.pem &&"
        " birthmark device enroll --cert chip.pem`."
    )
    unique_id: str


@dataclass(frozen=True, slots=True)
class Shipment:
    """A list of devices and its validation; `template` has the settings of each enrollment."""

    file: Path
    trust: Any
    total: int
    template: EnrollmentTemplate
    quiet: bool
    needs_common_name: bool = True
    force: bool = False
    doing: str = "Enrolling"
    """Progress label of the operation."""
    hub_host: Callable[[str | None], str | None] = lambda _name: None
    """Returns the host of the hub to which a device is assigned, at Azure."""

    def wishes(self, tell: Tell) -> Iterator[EnrollmentRequest]:
        """Yield enrollment requests; report rejected entries at once."""
        judge = None if self.force else Judge(SystemClock().now(), self.needs_common_name)
        entries = entries_of(self.file, self.trust, judge, quiet=True)
        console = Console(stderr=True)
        hidden = self.quiet or not console.is_terminal
        shown = track(entries, self.doing, total=self.total, console=console, transient=True, disable=hidden)
        names = Marks()
        for number, entry in enumerate(shown, 1):
            try:
                wish = self._wish(entry, number, names)
            except BirthmarkError as error:
                name = error.facts.get("unique_id") or f"entry {error.facts.get('place')}"
                thumbprint = None
                if isinstance(entry, ManifestEntry):
                    name, thumbprint = entry.device_id, entry.thumbprint
                tell(refused(name, thumbprint.hex() if thumbprint else None, error, again()))
            else:
                yield wish

    def _wish(self, entry: ManifestEntry | BirthmarkError, number: int, names: Marks) -> EnrollmentRequest:
        """Return the enrollment request of an entry. Raise its error; `names` has the names used so far."""
        if isinstance(entry, BirthmarkError):
            raise entry
        if (certificate := entry.unread) is None:
            raise NoCertificateError(unique_id=entry.unique_id)
        if entry.doubts:
            who = f"A device with the certificate of {entry.device_id}"
            raise CannotWorkError(who=who, detail=" and ".join(entry.doubts))
        wish = self.template.wish(entry, number, certificate)
        wish = replace(wish, hub=self.hub_host(wish.hub))
        check_name(wish.device_id, is_azure=self.needs_common_name)
        check_values(wish, is_azure=self.needs_common_name)
        if self.template.device_id is not None:
            before = names.add("device", wish.device_id, number)
            if before is not None:
                raise NameTakenTwiceError(device=entry.device_id, name=wish.device_id, before=before)
        return wish


def template_of(path: Path | None, how: "DeviceOptions") -> EnrollmentTemplate:
    """Return the settings of each device from the file, overridden by options."""
    text = "" if path is None else read_text(path)
    if path is not None and not text.strip():
        raise TemplateInvalidError(file=path, line=1, detail="it is empty")
    template = parse_template(text, path or Path("template.toml"))
    azure = msgspec.structs.replace(
        template.azure,
        edge=how.edge or template.azure.edge,
        hub=how.hub or template.azure.hub,
        issue=how.issue or template.azure.issue,
    )
    aws = msgspec.structs.replace(template.aws, policy=how.policy or template.aws.policy)
    return msgspec.structs.replace(template, azure=azure, aws=aws)


@dataclass(frozen=True, slots=True)
class EachTarget:
    """Runs at several targets in sequence; an unavailable target does not affect the others."""

    where: "TargetsOptions"
    writing: "WriteOptions"
    run: "RunOptions"
    as_json: bool

    def opened(self) -> list[EnrollmentTarget]:
        """Open the targets, and return them."""
        return [where.open() for where in self.where.each()]

    def enroll(self, targets: list[EnrollmentTarget], shipment: "Shipment", *, update: bool) -> None:
        """Enroll a shipment at each target. Raise `typer.Exit` if a row was rejected."""
        from birthmark.fleet.azure_target import AzureTarget

        for where, target in zip(self.where.each(), targets, strict=True):
            self.writing.confirm(target, where.profile, shipment.total)

        def one(where: "TargetOptions", tally: BulkSummary) -> None:
            target, run = targets[wheres.index(where)], self._run_of(where)
            judged = replace(shipment, needs_common_name=where.is_azure)
            if where.is_azure:
                judged = replace(judged, hub_host=cache(where.profile.hub_host))
                if (hub := shipment.template.azure.hub) is not None and "{" not in hub:
                    judged.hub_host(hub)  # the same for all, so check it before the first
            enroll_shipment(target, judged, tally, run, update=update, dry_run=self.writing.dry_run)
            new = tally.counts[TargetOutcome.WOULD_CREATE]
            if isinstance(target, AzureTarget) and new:
                is_tiered, of_hubs = where.profile.tiers(new)
                for said in (target.allowance(new, is_tiered=is_tiered), *of_hubs):
                    if said is not None:
                        typer.echo(said, err=True)

        wheres = self.where.each()
        self._each(one)

    def undo(self) -> None:
        """Undo the changes in each target's journal. Raise `typer.Exit` if some could not be undone."""
        self._each(lambda where, tally: undo_shipment(where, self.writing, self._run_of(where), tally))

    def _run_of(self, where: "TargetOptions") -> "RunOptions":
        return self.run.for_target(where.to, among=len(self.where.each()))

    def _each(self, one: Callable[["TargetOptions", BulkSummary], None]) -> None:
        problem: BirthmarkError | None = None
        has_refusals = False
        for where in self.where.each():
            tally = BulkSummary(as_json=self.as_json, to=str(where.to) if len(self.where.each()) > 1 else None)
            try:
                one(where, tally)
            except BirthmarkError as error:
                problem = problem or error
            has_refusals |= tally.has_refusals
        if problem is not None:
            raise problem
        if has_refusals:
            raise typer.Exit(SOME_ROWS_REFUSED)


def enroll_shipment(
    target: EnrollmentTarget, shipment: Shipment, tally: BulkSummary, run: "RunOptions", *, update: bool, dry_run: bool
) -> None:
    """Enroll the shipment and print the summary, however the run ends."""
    belongs_to = target.identity if run.journal else ""
    with (
        Journal(run.journal, belongs_to, again=without("--journal", takes_value=True)) as kept,
        _outcome_reporter(tally, run, target, dry_run=dry_run) as tell,
    ):
        if kept.before:
            done = format_count(kept.before, "outcome")
            typer.echo(
                f"An earlier run was interrupted after {done}; the current state is read from the target.", err=True
            )
        wishes = shipment.wishes(tell)
        try:
            PacedTarget(1, says=print_pause).ask(partial(target.survey, shipment.total))
            enroll_all(target, wishes, kept, tell, update=update, dry_run=dry_run, again=again(), says=print_pause)
        except BaseException as ending:
            is_stopped = isinstance(ending, KeyboardInterrupt)
            said = "Stopped" if is_stopped else "Interrupted"
            said += f" after {tally.counts.total()} of {format_count(shipment.total, 'entry')}: {tally.summary()}"
            tally.show_refusals()
            typer.echo(f"{target.description}: {said}. Run it again to continue.", err=True)
            if is_stopped:
                raise typer.Exit(INTERRUPTED) from ending
            raise
    tally.show_refusals()
    tally.show_differences()
    typer.echo(f"{target.description}: {tally.summary()}.", err=True)
    hint_at_policy(needs_one=not shipment.needs_common_name and shipment.template.aws.policy is None and tally.has_new)


def hint_at_policy(*, needs_one: bool) -> None:
    """Warn that devices at AWS without a policy have no permissions."""
    if not needs_one:
        return
    typer.echo(
        "No policy is set. Unless a thing group has one, AWS denies these devices all actions. To attach one: "
        f"`{again()} --policy NAME`.",
        err=True,
    )


@contextmanager
def _outcome_reporter(
    tally: BulkSummary, run: "RunOptions", target: EnrollmentTarget, *, dry_run: bool
) -> Iterator[Tell]:
    """Yield a callback that adds an outcome to the summary and the reports."""
    with opened(run.report, "Enrollment", target.description, dry_run=dry_run) as reports:
        takers = [tally.add, *(report.add for report in reports)]

        def tell(outcome: JournalOutcome) -> None:
            for take in takers:
                take(outcome)

        yield tell


def undo_shipment(where: "TargetOptions", writing: "WriteOptions", run: "RunOptions", tally: BulkSummary) -> None:
    """Undo the changes in a journal, and print the summary."""
    if run.journal is None:
        raise JournalNotNamedError(again=again())
    open_file(run.journal).close()
    target = where.open(takes_away=True)
    with (
        _taking_back_there(where),
        Journal(run.journal, target.identity, again=without("--journal", takes_value=True)) as kept,
    ):
        kept.ending = None
        count = sum(1 for _ in kept.list_undoable_writes())
        writing.confirm(target, where.profile, count, "journaled write")
        with (
            _outcome_reporter(tally, run, target, dry_run=writing.dry_run) as tell,
            _shown("Taking back", count, tally) as step,
        ):
            there = partial(_tell_taken_back, tell, where, step)
            undo_all(target, kept, there, dry_run=writing.dry_run, again=again(), says=print_pause)
        if not (writing.dry_run or tally.has_refusals):
            kept.ending = TAKEN_BACK
    tally.show_refusals()
    typer.echo(f"{target.description}: {tally.summary()}.", err=True)
    if where.is_azure and where.profile.is_local and tally.counts[TargetOutcome.TAKEN_BACK]:
        typer.echo(
            "A device that has registered since stays at its hub. List them: `birthmark hub device ls`.", err=True
        )


@contextmanager
def _taking_back_there(where: "TargetOptions") -> Iterator[None]:
    """Add the command for the correct target to the error about another target's journal."""
    try:
        yield
    except OtherTargetsJournalError as error:
        is_aws, other = error.belongs_to.startswith("AWS"), where.profile.dps_option(error.belongs_to)
        if is_aws == where.is_azure:
            advice = "Undo it at its target"
            command = f"{without('--to', takes_value=True)} --to {'aws' if is_aws else 'azure'}"
        elif where.is_azure and other is not None:
            advice, command = "Undo it at its target", f"{without('--dps', takes_value=True)}{other}"
        else:
            advice = "Undo it at its target, set with --profile, --dps or --data. To list enrollments"
            command = f"birthmark device ls{where.as_options()}"
        said: dict[str, Any] = {"belongs_to": error.belongs_to, "target": error.target, "path": error.path}
        raise OtherTargetsJournalError(advice=advice, command=command, **said) from error


@contextmanager
def _shown(what: str, total: int, tally: BulkSummary) -> Iterator[Callable[[], None]]:
    """Show progress on a terminal; on Ctrl-C, print the summary and how to continue."""
    console = Console(stderr=True)
    hidden = tally.as_json or not console.is_terminal
    try:
        with Progress(console=console, transient=True, disable=hidden) as progress:
            task = progress.add_task(what, total=total)
            yield lambda: progress.advance(task)
    except KeyboardInterrupt:
        done = f"Stopped; {tally.summary()} of {total}."
        typer.echo(f"{done} The same command continues: {again()}", err=True)
        raise


def _tell_taken_back(tell: Tell, where: "TargetOptions", step: Callable[[], None], outcome: JournalOutcome) -> None:
    if outcome.refusal is not None:
        outcome.refusal.add_facts(options=where.as_options())
    tell(outcome)
    step()
