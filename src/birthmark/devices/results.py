"""What a revocation of a device did, part by part: values that the command line shares with the server."""

from dataclasses import dataclass
from enum import StrEnum


class RevocationOutcome(StrEnum):
    """What happened to a part of a device."""

    REVOKED = "taken back"
    WOULD_REVOKE = "would be taken back"
    WAS_REVOKED = "was taken back"
    LEFT = "left"
    """Other devices use it too, or this server cannot reach it: an operator decides."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class RevokedPart:
    """A row of the answer. Its fields are the stable JSON form."""

    place: str
    what: str
    id: str
    became: RevocationOutcome
    note: str = ""
    command: str = ""
    """The command that an operator types next, where something is left to do."""
