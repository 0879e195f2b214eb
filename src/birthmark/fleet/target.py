"""The port `EnrollmentTarget`, and what goes over it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, TypeAlias

from birthmark.pki.certificates import Thumbprint

AT_ONCE = 16
"""How many questions a target is asked at a time, while it does not say that it is too much (`pace`)."""
WayBack: TypeAlias = Mapping[str, Any]
"""What a target needs to take one device back, as it is before anything is written: JSON, for the journal."""
Note: TypeAlias = Callable[[str, WayBack], None]
"""Told of each device before it is written: its id, and the way back; an empty one where nothing was written."""


def unnoted(_device_id: str, _way: WayBack) -> None:
    """Keep nothing: there is no way back."""


def record_name(device_id: str, way: WayBack) -> str:
    """Return the name that `device rm` takes of what was written: at DPS the registration id."""
    name = way.get("registration_id")
    return name if isinstance(name, str) else device_id


class ShippedCertificate(Protocol):
    """What a record needs of a device's certificate: a `Certificate`, or one that nobody had to parse."""

    @property
    def thumbprint(self) -> Thumbprint: ...

    @property
    def subject_cn(self) -> str | None: ...

    def pem(self) -> str: ...


@dataclass(frozen=True, slots=True)
class EnrollmentRequest:
    """A device to put on record, and what else is to be true of it there; what is None or empty is left as it is.

    At Azure the registration id is the certificate's common name, whatever the device is called at its hub.
    """

    device_id: str
    certificate: ShippedCertificate
    is_edge: bool = False
    """Azure's, as are tags and desired properties: what the device's twin begins with."""
    tags: Mapping[str, Any] = field(default_factory=dict)
    desired: Mapping[str, Any] = field(default_factory=dict)
    hub: str | None = None
    """Azure's: the host of the one hub that the device may be assigned to."""
    issue: str | None = None
    """Azure's: the policy by which the device is issued a certificate when it registers with a request."""
    policy: str | None = None
    """AWS's, as is all below."""
    thing_type: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[str, ...] = ()


class Change(NamedTuple):
    """What is otherwise on record than it is wished, in words: `certificate`, 12ab…, 34cd…"""

    what: str
    present: str
    wanted: str


class TargetOutcome(StrEnum):
    """What became of a wish."""

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
    """Somebody who cannot be asked would let it in still, or others would be shut out with it."""


class EnrollmentOutcome(NamedTuple):
    """What became of a wish, and what was, or would be, changed of the record that was there."""

    done: TargetOutcome
    difference: tuple[Change, ...] = ()


class RetirementOutcome(NamedTuple):
    """What became of a device that was to connect no more, and why it was left, where this alone knows."""

    done: TargetOutcome
    why_left: str = ""


@dataclass(frozen=True, slots=True)
class EnrollmentRecord:
    """What is on record under one name; its fields are the stable JSON form."""

    name: str
    kind: str
    state: str
    thumbprint: str | None
    detail: str


class EnrollmentTarget(Protocol):
    """A cloud's enrollment records. Methods block; each may be called from several threads."""

    @property
    def description(self) -> str:
        """Where this writes, for people, without secrets."""
        ...

    @property
    def identity(self) -> str:
        """Which records these are: endpoint, account and scope. Two servers at one address differ in it."""
        ...

    def survey(self, count: int) -> None:
        """Read in bulk what is on record, before `count` devices are enrolled; `enroll` may then ask less.

        A target with far more records than that is not read: each device is asked for instead.
        """
        ...

    @property
    def most_at_once(self) -> int:
        """How many devices one `enroll_new` takes; 1 where the cloud has no way to write several."""
        ...

    @property
    def writes_at_once(self) -> bool:
        """Whether a device is one write, so that nothing of it was done where that was refused."""
        ...

    def enroll_new(self, wishes: Sequence[EnrollmentRequest], note: Note) -> Sequence[bool]:
        """Put devices on record in one request and say of each whether it was created.

        False is no refusal: the device is to be enrolled by itself, which says what is there or what was wrong.
        """
        ...

    def enroll(
        self, wish: EnrollmentRequest, note: Note = unnoted, *, update: bool, dry_run: bool
    ) -> EnrollmentOutcome:
        """Put a device on record. Raise `DifferentRecordError` when it is there otherwise and not to be updated."""
        ...

    def take_back(self, device_id: str, way: WayBack, *, dry_run: bool) -> TargetOutcome:
        """Undo what was done to a device, and nothing else. Raise `NotTakenBackError` where it changed since."""
        ...

    def records(self) -> Iterator[EnrollmentRecord]:
        """Yield everything on record."""
        ...

    def remove(self, name: str, *, is_group: bool) -> Sequence[str]:
        """Take a record off, and return what is to be said of what stays. Raise `NoSuchRecordError`."""
        ...
