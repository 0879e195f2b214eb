"""What became of a lost device, part by part: values, for the server and for who asks elsewhere without being one."""

from dataclasses import dataclass
from enum import StrEnum


class Became(StrEnum):
    """What became of a part of it."""

    TAKEN_BACK = "taken back"
    WOULD_BE = "would be taken back"
    WAS = "was taken back"
    LEFT = "left"
    """It is not this device's alone, or cannot be reached: whoever knows it decides."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Taken:
    """A row of the answer; its fields are the stable JSON form."""

    place: str
    what: str
    id: str
    became: Became
    note: str = ""
    command: str = ""
    """What to type about it, where something is left to do."""
