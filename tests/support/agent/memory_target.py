"""A target of enrollments for unit tests: records in a dictionary."""

from collections.abc import Iterator, Sequence

from birthmark.fleet.enrollment_target import (
    EnrollmentOutcome,
    EnrollmentRecord,
    EnrollmentRequest,
    Note,
    TargetOutcome,
    WayBack,
    unnoted,
)
from birthmark.fleet.errors import NotTakenBackError


class MemoryTarget:
    """Takes `max_batch_size` together, and creates of these what nobody has."""

    description = "memory"
    is_atomic = True

    def __init__(self, identity: str = "here", max_batch_size: int = 1) -> None:
        self.identity = identity
        self.max_batch_size = max_batch_size
        self.on_record: dict[str, str] = {}
        self.batches: list[int] = []
        self.alone: list[str] = []

    def survey(self, count: int) -> None:
        del count

    def enroll_new(self, wishes: Sequence[EnrollmentRequest], note: Note = unnoted) -> Sequence[bool]:
        self.batches.append(len(wishes))
        for wish in wishes:
            note(wish.device_id, {"thumbprint": wish.certificate.thumbprint.hex()})
        created = [wish.device_id not in self.on_record for wish in wishes]
        self.on_record |= {
            wish.device_id: wish.certificate.thumbprint.hex()
            for wish, is_new in zip(wishes, created, strict=True)
            if is_new
        }
        for wish, is_new in zip(wishes, created, strict=True):
            if not is_new:
                note(wish.device_id, {})
        return created

    def enroll(
        self, wish: EnrollmentRequest, note: Note = unnoted, *, update: bool, dry_run: bool
    ) -> EnrollmentOutcome:
        del update
        self.alone.append(wish.device_id)
        thumbprint = wish.certificate.thumbprint.hex()
        if self.on_record.get(wish.device_id) == thumbprint:
            return EnrollmentOutcome(TargetOutcome.UNCHANGED)
        if dry_run:
            return EnrollmentOutcome(TargetOutcome.WOULD_CREATE)
        note(wish.device_id, {"thumbprint": thumbprint})
        self.on_record[wish.device_id] = thumbprint
        return EnrollmentOutcome(TargetOutcome.CREATED)

    def undo_enrollment(self, device_id: str, way: WayBack, *, dry_run: bool) -> TargetOutcome:
        if device_id not in self.on_record:
            return TargetOutcome.GONE
        if self.on_record[device_id] != way["thumbprint"]:
            raise NotTakenBackError(device=device_id, target=self.description, detail="it has another certificate now")
        if dry_run:
            return TargetOutcome.WOULD_TAKE_BACK
        del self.on_record[device_id]
        return TargetOutcome.TAKEN_BACK

    def records(self) -> Iterator[EnrollmentRecord]:
        raise NotImplementedError

    def remove(self, name: str, *, is_group: bool) -> Sequence[str]:
        del is_group
        del self.on_record[name]
        return []
