"""A device moves from one target to another: on record there, seen there, and only then retired here.

Nothing is remembered: each look asks both targets, so that a run which was cut off is simply run again.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Protocol, TypeAlias

from birthmark.errors import BirthmarkError, ConflictError, InvalidRequestError, NotFoundError
from birthmark.fleet.adaptive_concurrency import PacedTarget, Says, silent
from birthmark.fleet.errors import DifferentRecordError
from birthmark.fleet.journal import Journal, JournalOutcome, NoteWriter
from birthmark.fleet.target import AT_ONCE, EnrollmentRequest, EnrollmentTarget, Note, RetirementOutcome, TargetOutcome
from birthmark.fleet.tracking import DeviceProgress, DeviceStage, Goal, StatusSource


class NotAtSourceError(NotFoundError):
    """The device cannot be moved from its source."""

    code = "fleet.not_at_source"
    cause = "{device} is {standing} at {source}{detail}, so the right to move it cannot be proven."
    fix = "List enrollments: `birthmark device ls{options}`. Enroll a new device instead of moving it."
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
    """What is to be done next for a device."""

    ENROLL = "enroll"
    WAIT = "wait"
    RETIRE = "retire"
    NOTHING = "nothing"


class MigrationStage(StrEnum):
    """How far a device came."""

    WAITING = "waiting"
    """On record at the destination, and not yet seen there."""
    MOVED = "moved"
    WOULD_ENROLL = "would be enrolled"
    WOULD_RETIRE = "would be retired"
    REFUSED = "refused"


class MigrationSource(StatusSource, Protocol):
    """Where devices come from."""

    def retire(self, wish: EnrollmentRequest, *, dry_run: bool) -> RetirementOutcome:
        """Let a device connect no more, and keep its record."""
        ...


class Destination(StatusSource, EnrollmentTarget, Protocol):
    """Where they go."""

    def reinstate(self, wish: EnrollmentRequest) -> None:
        """Let a device connect again that was retired here, and whose record was just enabled."""
        ...


def next_step(source: DeviceStage, destination: DeviceStage) -> MigrationStep:
    """Return what is to be done of a device that stands so at both; conflicts are for `check`."""
    if destination in {DeviceStage.MISSING, DeviceStage.DISABLED}:
        return MigrationStep.ENROLL
    if not DeviceProgress("", destination).reached(Goal.CONNECTED):
        return MigrationStep.WAIT
    # Of a disabled record nobody knows whether the run that disabled it came as far as the hub: to retire asks again.
    return MigrationStep.NOTHING if source is DeviceStage.MISSING else MigrationStep.RETIRE


@dataclass(frozen=True, slots=True)
class MigrationProgress:
    """What became of one device at this look."""

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
"""A device as it is at the source, and as it shall be at the destination."""


@dataclass(frozen=True, slots=True)
class Move:
    """From where to where, and what is kept of it: the destination's journal takes back what was enrolled."""

    source: MigrationSource
    destination: Destination
    journal: Journal
    dry_run: bool
    update: bool = False
    """Enable what is disabled there, as what came from there once."""
    says: Says = silent

    def look(
        self, wishes: Sequence[tuple[EnrollmentRequest, EnrollmentRequest]], workers: int = AT_ONCE
    ) -> Iterator[MigrationProgress]:
        """Do for each what is next. Raise what stops everything."""
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
        there, here = self.destination.stand(after), self.source.stand(before)
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
            self.journal.settle(after.device_id)  # before: who is killed in between takes nothing back there
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
        """Put a device on record there. Raise for what was disabled there, unless that is to be enabled."""
        is_disabled, where = there.standing is DeviceStage.DISABLED, self.destination.description
        if is_disabled and not self.update:
            self.destination.enroll(after, update=False, dry_run=True)  # which says more, but for a hub's own record
            status = {"present": "status disabled", "wanted": "status enabled"}
            raise DifferentRecordError(device=after.device_id, target=where, **status)
        done = self.destination.enroll(after, note, update=is_disabled, dry_run=self.dry_run).done
        if self.dry_run:
            return MigrationProgress(
                after.device_id, MigrationStage.WOULD_ENROLL, "disabled now" if is_disabled else ""
            )
        # With its outcome this way back stands for itself, also where a later look of this run writes once more.
        self.journal.add(JournalOutcome(after.device_id, after.certificate.thumbprint.hex(), done))
        if is_disabled:
            self.destination.reinstate(after)
            return MigrationProgress(after.device_id, MigrationStage.WAITING, "enabled again")
        detail = (
            "enrolled now" if done is not TargetOutcome.UNCHANGED else f"{there.standing.value} {there.detail}".strip()
        )
        return MigrationProgress(after.device_id, MigrationStage.WAITING, detail)

    def _check(self, here: DeviceProgress, there: DeviceProgress) -> None:
        """Raise for a device that cannot be moved.

        One that was taken back is lost: no move lets it in anywhere, whatever option asks for that.
        """
        is_known_there = there.standing not in {DeviceStage.MISSING, DeviceStage.OTHERWISE}
        if there.standing in {DeviceStage.OTHERWISE, DeviceStage.TAKEN_BACK}:
            where = self.destination.description
            detail = there.detail if there.standing is DeviceStage.OTHERWISE else f"status taken back ({there.detail})"
            raise TakenAtDestinationError(device=there.device_id, destination=where, detail=detail)
        is_absent = here.standing is DeviceStage.MISSING and not is_known_there
        if is_absent or here.standing in {DeviceStage.OTHERWISE, DeviceStage.TAKEN_BACK}:
            told = {"standing": here.standing.value, "detail": f" ({here.detail})" if here.detail else ""}
            raise NotAtSourceError(device=here.device_id, source=self.source.description, **told)
