"""Migration of a device between targets: enrolled there, connected there, and only then retired here.

It stores no state: each pass queries both targets, so that an interrupted run can simply be repeated.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Protocol, TypeAlias

from birthmark.errors import BirthmarkError, ConflictError, InvalidRequestError, NotFoundError
from birthmark.fleet.adaptive_concurrency import PacedTarget, Says, silent
from birthmark.fleet.device_onboarding_stages import DeviceProgress, DeviceStage, Goal, StatusSource
from birthmark.fleet.enrollment_rollback_journal import Journal, JournalOutcome, NoteWriter
from birthmark.fleet.enrollment_target import (
    AT_ONCE,
    EnrollmentRequest,
    EnrollmentTarget,
    Note,
    RetirementOutcome,
    TargetOutcome,
)
from birthmark.fleet.errors import DifferentRecordError


class NotAtSourceError(NotFoundError):
    """The device cannot be moved from its source."""

    code = "fleet.not_at_source"
    cause = "{device} is {standing} at {source}{detail}, so the right to move the device cannot be proven."
    fix = "List enrollments: `birthmark device ls{options}`. If the device is new, enroll it instead of moving it."
    detail: str = ""
    device: str
    options: str = ""
    source: str
    standing: str


class TakenAtDestinationError(ConflictError):
    """The name is used or disabled at the destination."""

    code = "fleet.taken_at_destination"
    cause = "At {destination}, {device} already exists with {detail}."
    fix = "List enrollments: `birthmark device ls{options}`"
    destination: str
    detail: str
    device: str
    options: str = ""


class MigrationStep(StrEnum):
    """Next step of a device."""

    ENROLL = "enroll"
    WAIT = "wait"
    RETIRE = "retire"
    NOTHING = "nothing"


class MigrationStage(StrEnum):
    """Migration stage of a device."""

    WAITING = "waiting"
    """Enrolled at the destination, and not yet connected there."""
    MOVED = "moved"
    WOULD_ENROLL = "would be enrolled"
    WOULD_RETIRE = "would be retired"
    REFUSED = "refused"


class MigrationSource(StatusSource, Protocol):
    """Source of a migration."""

    def retire(self, request: EnrollmentRequest, *, dry_run: bool) -> RetirementOutcome:
        """Block a device, and keep its record."""
        ...


class Destination(StatusSource, EnrollmentTarget, Protocol):
    """Destination of a migration."""

    def reinstate(self, request: EnrollmentRequest) -> None:
        """Unblock a device that was retired here, after its record was enabled."""
        ...


def next_step(source: DeviceStage, destination: DeviceStage) -> MigrationStep:
    """Return the next step for a device's stages at source and destination; `check` handles conflicts."""
    if destination in {DeviceStage.MISSING, DeviceStage.DISABLED}:
        return MigrationStep.ENROLL
    if not DeviceProgress("", destination).reached(Goal.CONNECTED):
        return MigrationStep.WAIT
    # For a disabled record it is unknown whether the disabling run also reached the hub: retiring checks again.
    return MigrationStep.NOTHING if source is DeviceStage.MISSING else MigrationStep.RETIRE


@dataclass(frozen=True, slots=True)
class MigrationProgress:
    """Result of one pass for one device."""

    device_id: str
    moved: MigrationStage
    detail: str = ""
    refusal: BirthmarkError | None = None

    def as_row(self) -> dict[str, Any]:
        """Return the stable JSON form."""
        row: dict[str, Any] = {"device": self.device_id, "moved": self.moved.value, "detail": self.detail}
        if self.refusal is not None:
            row |= {"code": self.refusal.code, "cause": self.refusal.explain_cause(), "fix": self.refusal.explain_fix()}
        return row


Pair: TypeAlias = tuple[EnrollmentRequest, EnrollmentRequest]
"""A device's enrollment at the source, and its intended enrollment at the destination."""


@dataclass(frozen=True, slots=True)
class Move:
    """A migration from source to destination; the destination's journal undoes the enrollments."""

    source: MigrationSource
    destination: Destination
    journal: Journal
    dry_run: bool
    update: bool = False
    """Whether to enable devices that are disabled there, such as those migrated from there before."""
    says: Says = silent

    def run_pass(
        self, wishes: Sequence[tuple[EnrollmentRequest, EnrollmentRequest]], workers: int = AT_ONCE
    ) -> Iterator[MigrationProgress]:
        """Execute the next step of each device. Raise errors that end the run."""
        paced = PacedTarget(workers, says=self.says)

        def one(pair: Pair) -> MigrationProgress:
            note = NoteWriter(self.journal.begin)
            return paced.ask(lambda: self._one(pair, note), partial(note.may_repeat, self.destination))

        with ThreadPoolExecutor(workers, thread_name_prefix="move") as pool:
            try:
                yield from pool.map(one, wishes)
            finally:
                paced.stop()

    def _one(self, pair: Pair, note: Note) -> MigrationProgress:
        before, after = pair
        try:
            return self._moved(before, after, note)
        except (ConflictError, NotFoundError, InvalidRequestError) as error:
            return MigrationProgress(after.device_id, MigrationStage.REFUSED, error.explain_cause(), error)

    def _moved(self, before: EnrollmentRequest, after: EnrollmentRequest, note: Note) -> MigrationProgress:
        there, here = self.destination.get_progress(after), self.source.get_progress(before)
        self._check(here, there)
        match next_step(here.standing, there.standing):
            case MigrationStep.ENROLL:
                return self._enrolled(after, there, note)
            case MigrationStep.WAIT:
                return MigrationProgress(
                    after.device_id, MigrationStage.WAITING, f"{there.standing.value} {there.detail}".strip()
                )
            case MigrationStep.RETIRE:
                return self._retired(before, after, here)
            case _:
                return MigrationProgress(after.device_id, MigrationStage.MOVED)

    def _retired(self, before: EnrollmentRequest, after: EnrollmentRequest, here: DeviceProgress) -> MigrationProgress:
        done, why_left = self.source.retire(before, dry_run=True)
        if done is not TargetOutcome.LEFT and not self.dry_run:
            self.journal.settle(after.device_id)  # first: a kill in between must not cause an undo there
            if done is TargetOutcome.WOULD_RETIRE:
                done, why_left = self.source.retire(before, dry_run=False)
        if done is TargetOutcome.LEFT:
            return MigrationProgress(
                after.device_id, MigrationStage.WAITING, f"seen, and {done.value}: {why_left or here.detail}"
            )
        if done is TargetOutcome.WOULD_RETIRE:
            return MigrationProgress(after.device_id, MigrationStage.WOULD_RETIRE)
        return MigrationProgress(
            after.device_id, MigrationStage.MOVED, "retired now" if done is TargetOutcome.RETIRED else ""
        )

    def _enrolled(self, after: EnrollmentRequest, there: DeviceProgress, note: Note) -> MigrationProgress:
        """Enroll a device at the destination. Raise for one that is disabled there, unless `update` is set."""
        is_disabled, where = there.standing is DeviceStage.DISABLED, self.destination.description
        if is_disabled and not self.update:
            self.destination.enroll(after, update=False, dry_run=True)  # a better error, except for the hub's record
            status = {"present": "status disabled", "wanted": "status enabled"}
            raise DifferentRecordError(device=after.device_id, target=where, **status)
        done = self.destination.enroll(after, note, update=is_disabled, dry_run=self.dry_run).done
        if self.dry_run:
            return MigrationProgress(
                after.device_id, MigrationStage.WOULD_ENROLL, "disabled now" if is_disabled else ""
            )
        # With its outcome this undo entry is complete, even if a later pass of this run writes again.
        self.journal.add(JournalOutcome(after.device_id, after.certificate.thumbprint.hex(), done))
        if is_disabled:
            self.destination.reinstate(after)
            return MigrationProgress(after.device_id, MigrationStage.WAITING, "enabled again")
        detail = (
            "enrolled now" if done is not TargetOutcome.UNCHANGED else f"{there.standing.value} {there.detail}".strip()
        )
        return MigrationProgress(after.device_id, MigrationStage.WAITING, detail)

    def _check(self, here: DeviceProgress, there: DeviceProgress) -> None:
        """Raise for a device that cannot be migrated.

        A revoked device is lost: no migration re-enables it, regardless of options.
        """
        is_known_there = there.standing not in {DeviceStage.MISSING, DeviceStage.OTHERWISE}
        if there.standing in {DeviceStage.OTHERWISE, DeviceStage.TAKEN_BACK}:
            where = self.destination.description
            detail = (
                there.detail
                if there.standing is DeviceStage.OTHERWISE
                else f"status revoked{f' ({there.detail})' if there.detail else ''}"
            )
            raise TakenAtDestinationError(device=there.device_id, destination=where, detail=detail)
        is_absent = here.standing is DeviceStage.MISSING and not is_known_there
        if is_absent or here.standing in {DeviceStage.OTHERWISE, DeviceStage.TAKEN_BACK}:
            told = {"standing": here.standing.value, "detail": f" ({here.detail})" if here.detail else ""}
            raise NotAtSourceError(device=here.device_id, source=self.source.description, **told)
