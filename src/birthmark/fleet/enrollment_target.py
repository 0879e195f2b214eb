"""Port `EnrollmentTarget`, and its values."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, TypeAlias

from birthmark.pki.certificates import Thumbprint

AT_ONCE = 16
"""Initial number of concurrent requests to a target, while it does not throttle (`adaptive_concurrency`)."""
WayBack: TypeAlias = Mapping[str, Any]
"""Rollback entry: JSON data from before any write that a target needs to undo changes to a device."""
Note: TypeAlias = Callable[[str, WayBack], None]
"""Called before each device is written, with its ID and rollback entry; an empty entry if nothing was written."""


def unnoted(_device_id: str, _way: WayBack) -> None:
    """Store nothing, so that no rollback is possible."""


def record_name(device_id: str, way: WayBack) -> str:
    """Return the name of a written record for `device rm`: at DPS the registration ID."""
    name = way.get("registration_id")
    return name if isinstance(name, str) else device_id


class ShippedCertificate(Protocol):
    """Members of a device's certificate that a record needs: a `Certificate`, or an unparsed one."""

    @property
    def thumbprint(self) -> Thumbprint: ...

    @property
    def subject_cn(self) -> str | None: ...

    def pem(self) -> str: ...


@dataclass(frozen=True, slots=True)
class EnrollmentRequest:
    """A device to enroll, and the requested state of its record; None or empty members remain unchanged.

    At Azure, the registration ID is the certificate's common name, independent of the device ID at its hub.
    """

    device_id: str
    certificate: ShippedCertificate
    is_edge: bool = False
    """Azure only, like tags and desired properties, which form the initial twin."""
    tags: Mapping[str, Any] = field(default_factory=dict)
    desired: Mapping[str, Any] = field(default_factory=dict)
    hub: str | None = None
    """Azure only: host of the only hub that the device may be assigned to."""
    issue: str | None = None
    """Azure's: the policy that issues the device's certificate when it registers with a CSR."""
    policy: str | None = None
    """AWS only, as are all fields below."""
    thing_type: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[str, ...] = ()


class Change(NamedTuple):
    """A difference between record and request, as text: `certificate`, 12ab…, 34cd…."""

    what: str
    present: str
    wanted: str


class TargetOutcome(StrEnum):
    """Outcome of a request."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    WOULD_CREATE = "would create"
    WOULD_UPDATE = "would update"
    REFUSED = "refused"
    TAKEN_BACK = "taken back"
    WOULD_TAKE_BACK = "would take back"
    GONE = "gone already"
    RETIRED = "retired"
    WOULD_RETIRE = "would be retired"
    LEFT = "not retired"
    """A party that cannot be queried may still grant access, or others would be blocked, too."""


class EnrollmentOutcome(NamedTuple):
    """Outcome of a request, with the changes of the existing record, made or planned."""

    done: TargetOutcome
    difference: tuple[Change, ...] = ()


class RetirementOutcome(NamedTuple):
    """Outcome of blocking a device, with the reason if only this object knows why it was skipped."""

    done: TargetOutcome
    why_left: str = ""


@dataclass(frozen=True, slots=True)
class EnrollmentRecord:
    """The record under one name; its fields are the stable JSON form."""

    name: str
    kind: str
    state: str
    thumbprint: str | None
    detail: str


class EnrollmentTarget(Protocol):
    """A cloud's enrollment records. Methods block; each may be called from several threads."""

    @property
    def description(self) -> str:
        """Display name of the target, without secrets."""
        ...

    @property
    def identity(self) -> str:
        """Identity of the records: endpoint, account and scope. It differs for two servers at one address."""
        ...

    def survey(self, count: int) -> None:
        """Read the existing records in bulk before `count` devices are enrolled, to save requests in `enroll`.

        A target with many more records is not read; each device is queried instead.
        """
        ...

    @property
    def max_batch_size(self) -> int:
        """Maximum number of devices per `enroll_new`; 1 if the cloud has no bulk operation."""
        ...

    @property
    def is_atomic(self) -> bool:
        """Whether enrolling a device is a single write, so that a refusal means no change."""
        ...

    def enroll_new(self, requests: Sequence[EnrollmentRequest], note: Note) -> Sequence[bool]:
        """Create devices in one request and return for each whether it was created.

        False is no refusal: the device must be enrolled individually, which reports the existing record or the error.
        """
        ...

    def enroll(
        self, request: EnrollmentRequest, note: Note = unnoted, *, update: bool, dry_run: bool
    ) -> EnrollmentOutcome:
        """Enroll a device. Raise `DifferentRecordError` for a different existing record, unless `update` is set."""
        ...

    def undo_enrollment(self, device_id: str, way: WayBack, *, dry_run: bool) -> TargetOutcome:
        """Undo only the changes to a device. Raise `NotTakenBackError` if its record has changed since."""
        ...

    def records(self) -> Iterator[EnrollmentRecord]:
        """Yield all records."""
        ...

    def remove(self, name: str, *, is_group: bool) -> Sequence[str]:
        """Remove a record, and return notes about remaining objects. Raise `NoSuchRecordError`."""
        ...
