"""Where devices stand after they were put on record: as the target says, from nothing to connected."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from birthmark.fleet.adaptive_concurrency import PacedTarget, Says, silent
from birthmark.fleet.target import AT_ONCE, EnrollmentRequest


class DeviceStage(StrEnum):
    """How far a device came."""

    MISSING = "not on record"
    OTHERWISE = "on record otherwise"
    DISABLED = "disabled"
    TAKEN_BACK = "taken back"
    """Disabled, as the device is lost: not by a move."""
    UNASSIGNED = "unassigned"
    """On record, and never registered."""
    ASSIGNED = "never seen"
    """Known where it is to connect, and never seen there."""
    AWAY = "away"
    """It was connected, and is not now."""
    CONNECTED = "connected"


class Goal(StrEnum):
    """What to wait for."""

    ASSIGNED = "assigned"
    CONNECTED = "connected"


_REACHED = {
    Goal.ASSIGNED: frozenset({DeviceStage.ASSIGNED, DeviceStage.AWAY, DeviceStage.CONNECTED}),
    Goal.CONNECTED: frozenset({DeviceStage.AWAY, DeviceStage.CONNECTED}),
}
"""A device that was connected has proved that it can, wherever it is now."""


@dataclass(frozen=True, slots=True)
class DeviceProgress:
    """Where one device stands; `detail` says where it is assigned, or what is otherwise."""

    device_id: str
    standing: DeviceStage
    detail: str = ""
    at: datetime | None = None
    """When it came or went."""

    def reached(self, goal: Goal) -> bool:
        """Say whether it came so far."""
        return self.standing in _REACHED[goal]

    def as_row(self) -> dict[str, Any]:
        """Return the stable JSON form."""
        row: dict[str, Any] = {"device": self.device_id, "standing": self.standing.value, "detail": self.detail}
        return row | {"at": None if self.at is None else self.at.isoformat()}


class StatusSource(Protocol):
    """A target that can say how far a device came. Methods block; each may be called from several threads."""

    @property
    def description(self) -> str:
        """Where this looks, for people."""
        ...

    def stand(self, wish: EnrollmentRequest) -> DeviceProgress:
        """Return where the device of a wish stands."""
        ...


def stands_of(
    target: StatusSource, wishes: Sequence[EnrollmentRequest], workers: int = AT_ONCE, says: Says = silent
) -> Iterator[DeviceProgress]:
    """Yield where each device stands, in order. Raise what stops everything."""
    paced = PacedTarget(workers, says=says)
    with ThreadPoolExecutor(workers, thread_name_prefix="follow") as pool:
        try:
            yield from pool.map(lambda wish: paced.ask(lambda: target.stand(wish)), wishes)
        finally:
            paced.stop()
