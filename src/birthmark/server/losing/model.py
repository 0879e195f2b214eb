"""What is found of a lost device."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

Key = tuple[str, str, str]
"""Place, kind and id of one thing."""


@dataclass(frozen=True, slots=True)
class Found:
    """One thing by which the device comes in. Without `act` it was taken back before, or is left."""

    place: str
    what: str
    id: str
    act: Callable[[], Awaitable[object]] | None = field(default=None, repr=False)
    note: str = ""
    command: str = ""
    is_record: bool = True
    """Whether it shows that the device is known here; what stands in the way of a name does not."""
    is_left: bool = False
    """It is not this device's alone: whoever knows it decides."""

    @property
    def key(self) -> Key:
        return self.place, self.what, self.id
