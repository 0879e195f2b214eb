"""Why a chip is not taken in. Nothing was written then."""

from pathlib import Path

from birthmark import atomic_files
from birthmark.errors import BirthmarkError, ConflictError, InvalidRequestError, NotFoundError, PolicyError


class NameUnusableError(InvalidRequestError):
    """Neither a board nor a person can be called so."""

    code = "intake.name_unusable"
    cause = (
        "'{text}' cannot stand for the {what} in a bundle: 1 to 64 printable characters, no quotation marks, no "
        "backslash, no spaces around."
    )
    fix = "Type it as it is printed, such as `birthmark chip intake BOARD-0001`; what a scanner adds is set in it."
    text: str
    what: str


class TakenBeforeError(ConflictError):
    """The chip, or the board, is in a bundle already; what was taken in stays."""

    code = "intake.taken_before"
    bundle: Path
    line: int
    board: str
    at: str


class TakenAlreadyError(TakenBeforeError):
    """Chip and board were taken in before, together."""

    code = "intake.taken_already"
    cause = "Board {board} was taken in with this chip at {at}: line {line} of {bundle}."
    fix = "Nothing is left to do for this one. What was written then: `sed -n {line}p {bundle}`"


class ChipOfAnotherBoardError(TakenBeforeError):
    """The chip was taken in with another board."""

    code = "intake.chip_of_another_board"
    cause = (
        "The chip '{subject}' was taken in with board {board} at {at}, and not with {wanted}: line {line} of {bundle}."
    )
    fix = (
        "Put the board aside: its chip was moved, or one of the two serial numbers was scanned wrongly. What was "
        "written then: `sed -n {line}p {bundle}`"
    )
    subject: str
    wanted: str


class BoardOfAnotherChipError(TakenBeforeError):
    """The board was taken in with another chip."""

    code = "intake.board_of_another_chip"
    cause = "Board {board} was taken in with another chip at {at}: line {line} of {bundle}."
    fix = (
        "Put the board aside: its chip was exchanged, or two boards have one serial number. What was written then: "
        "`sed -n {line}p {bundle}`"
    )


class NotThisChipError(PolicyError):
    """The certificate is not this chip's."""

    code = "intake.not_this_chip"
    cause = (
        "The certificate of '{subject}' is of another key than the chip has: it was exchanged, or copied from another."
    )
    fix = "Put board {board} aside. What its chip holds: `birthmark chip ls{options}`"
    board: str
    subject: str
    options: str = ""


class MakerUnknownError(PolicyError):
    """The chip's certificate does not lead to the maker's root."""

    code = "intake.maker_unknown"
    cause = "The certificate of '{subject}' does not lead to a root that was given: {detail}."
    fix = (
        "If you trust the maker, give its root certificate with `--trust-root FILE`. A CA between, which the chip does "
        "not hold, goes by one more, or stands behind the chip's own certificate in a file that --cert names."
    )
    detail: str
    subject: str


class BundleDamagedError(BirthmarkError):
    """The last bundle is not as the station wrote it."""

    code = "intake.bundle_damaged"
    cause = "{bundle} is not as this station wrote it: line {line}, {detail}. Nothing was taken away from it."
    fix = (
        "Put an untouched copy in its place. Without one, move it aside: `mv -nT {bundle} {aside}`. The station then "
        "no longer knows the chips and boards in it, and takes them in again."
    )
    bundle: Path
    detail: str
    line: int

    @property
    def aside(self) -> Path:
        """Where it may go."""
        return atomic_files.aside(self.bundle, "damaged")


class StationUnusableError(BirthmarkError):
    """The station cannot sign."""

    code = "intake.station_unusable"
    cause = "The station in {directory} cannot sign: {detail}."
    fix = "Put its files back. To begin as a new station: `mv -nT {directory} {aside}`"
    detail: str
    directory: Path

    @property
    def aside(self) -> Path:
        """Where it may go."""
        return atomic_files.aside(self.directory)


class StationBusyError(ConflictError):
    """Another intake of this station is running."""

    code = "intake.station_busy"
    cause = "Another intake is running at the station in {directory}: its lines come one after the other."
    fix = "Let it end, or make this one a station of its own: `{again} --station {directory}-2`"
    again: str = "?"
    directory: Path


class NothingTakenError(NotFoundError):
    """No chip was taken in yet."""

    code = "intake.nothing_taken"
    cause = "The station in {directory} has taken in no chip since it was begun: there is nothing to hand over."
    fix = "Take one in first: `birthmark chip intake BOARD-0001 --station {directory}`"
    directory: Path
