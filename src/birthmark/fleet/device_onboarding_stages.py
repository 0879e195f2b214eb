"""Progress of enrolled devices, as reported by the target: from missing to connected."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from birthmark.fleet.adaptive_concurrency import PacedTarget, Says, silent
from birthmark.fleet.enrollment_target import AT_ONCE, EnrollmentRequest


class DeviceStage(StrEnum):
    """Stage of a device."""

    MISSING = "not on record"
    OTHERWISE = "on record otherwise"
    DISABLED = "disabled"
    TAKEN_BACK = "taken back"
    """Disabled because the device is lost, not because it was moved."""
    UNASSIGNED = "unassigned"
    """Enrolled, and never registered."""
    ASSIGNED = "never seen"
    """Known to its hub or account, and never connected."""
    AWAY = "away"
    """Was connected before, but is not now."""
    CONNECTED = "connected"


class Goal(StrEnum):
    """Stage to wait for."""

    ASSIGNED = "assigned"
    CONNECTED = "connected"


_REACHED = {
    Goal.ASSIGNED: frozenset({DeviceStage.ASSIGNED, DeviceStage.AWAY, DeviceStage.CONNECTED}),
    Goal.CONNECTED: frozenset({DeviceStage.AWAY, DeviceStage.CONNECTED}),
}
"""Stages that meet each goal: a device that was connected before meets it regardless of its current state."""


@dataclass(frozen=True, slots=True)
class DeviceProgress:
    """Progress of one device; `detail` has its assignment, or the difference."""

    device_id: str
    standing: DeviceStage
    detail: str = ""
    at: datetime | None = None
    """Time of the last connection or disconnection."""

    def reached(self, goal: Goal) -> bool:
        """Return whether the device has reached a goal."""
        return self.standing in _REACHED[goal]

    def as_row(self) -> dict[str, Any]:
        """Return the stable JSON form."""
        row: dict[str, Any] = {"device": self.device_id, "standing": self.standing.value, "detail": self.detail}
        return row | {"at": None if self.at is None else self.at.isoformat()}


class StatusSource(Protocol):
    """A target that reports the progress of a device. Methods block and are thread-safe."""

    @property
    def description(self) -> str:
        """Display name of the source."""
        ...

    def get_progress(self, request: EnrollmentRequest) -> DeviceProgress:
        """Return the progress of the device of a request."""
        ...


def iter_progress(
    target: StatusSource, requests: Sequence[EnrollmentRequest], workers: int = AT_ONCE, says: Says = silent
) -> Iterator[DeviceProgress]:
    """Yield the progress of each device, in order. Raise errors that end the run."""
    paced = PacedTarget(workers, says=says)
    with ThreadPoolExecutor(workers, thread_name_prefix="follow") as pool:
        try:
            yield from pool.map(lambda wish: paced.ask(lambda: target.get_progress(wish)), requests)
        finally:
            paced.stop()
