"""Errors of chip intake; no line was written."""

from pathlib import Path

from birthmark import atomic_files
from birthmark.errors import BirthmarkError, ConflictError, InvalidRequestError, NotFoundError, PolicyError


class NameUnusableError(InvalidRequestError):
    """The name of a board or person is not valid."""

    code = "intake.name_unusable"
    cause = (
        "'{text}' is not a valid {what} name in a bundle. Use 1 to 64 printable characters, without quotation marks, "
        "backslashes, or leading or trailing spaces."
    )
    fix = (
        "Enter the name as printed, for example `birthmark chip intake BOARD-0001`. Check whether the scanner is "
        "configured to add characters."
    )
    text: str
    what: str


class TakenBeforeError(ConflictError):
    """The chip or the board is already in a bundle."""

    code = "intake.taken_before"
    bundle: Path
    line: int
    board: str
    at: str


class TakenAlreadyError(TakenBeforeError):
    """The chip was already recorded with this board."""

    code = "intake.taken_already"
    cause = "Board {board} was recorded with this chip at {at}: line {line} of {bundle}."
    fix = "No action is needed. To show the record: `sed -n {line}p {bundle}`"


class ChipOfAnotherBoardError(TakenBeforeError):
    """The chip was recorded with another board."""

    code = "intake.chip_of_another_board"
    cause = "The chip '{subject}' was recorded with board {board} at {at}, not with {wanted}: line {line} of {bundle}."
    fix = (
        "Set the board aside: its chip was moved, or a serial number was scanned incorrectly. To show the"
        " record: `sed -n {line}p {bundle}`"
    )
    subject: str
    wanted: str


class BoardOfAnotherChipError(TakenBeforeError):
    """The board was recorded with a different chip."""

    code = "intake.board_of_another_chip"
    cause = "Board {board} was recorded with a different chip at {at}: line {line} of {bundle}."
    fix = (
        "Set the board aside: its chip was replaced, or two boards have the same serial number. To show "
        "the record: `sed -n {line}p {bundle}`"
    )


class NotThisChipError(PolicyError):
    """The certificate does not belong to the chip."""

    code = "intake.not_this_chip"
    cause = (
        "The certificate of '{subject}' does not match the chip's key: the chip was replaced, or the certificate was "
        "copied from another chip."
    )
    fix = "Set board {board} aside. List the chip's objects: `birthmark chip ls{options}`"
    board: str
    subject: str
    options: str = ""


class ManufacturerUnknownError(PolicyError):
    """The chip's certificate does not chain to the manufacturer's root."""

    code = "intake.maker_unknown"
    cause = "The certificate of '{subject}' does not chain to a specified root: {detail}."
    fix = (
        "If you trust the manufacturer, pass its root certificate with `--trust-root FILE`. If the chip lacks an "
        "intermediate CA, pass that CA with another --trust-root option, or after the chip's certificate in the "
        "--cert file."
    )
    detail: str
    subject: str


class BundleDamagedError(BirthmarkError):
    """The last bundle was changed."""

    code = "intake.bundle_damaged"
    cause = (
        "{bundle} differs from what this station wrote, at line {line}: {detail}. The station removed nothing from "
        "the bundle."
    )
    fix = (
        "Replace the bundle with an unmodified copy. If you have no copy, move the bundle: `mv -nT {bundle} "
        "{aside}`. The station then no longer knows the chips and boards in that bundle, and records them again."
    )
    bundle: Path
    detail: str
    line: int

    @property
    def aside(self) -> Path:
        """Suggested new path of the file."""
        return atomic_files.backup_path(self.bundle, "damaged")


class StationUnusableError(BirthmarkError):
    """The station cannot sign."""

    code = "intake.station_unusable"
    cause = "The station in {directory} cannot sign: {detail}."
    fix = "Restore the files of the station. To start a new station: `mv -nT {directory} {aside}`"
    detail: str
    directory: Path

    @property
    def aside(self) -> Path:
        """Suggested new path of the file."""
        return atomic_files.backup_path(self.directory)


class StationBusyError(ConflictError):
    """Another intake of this station is running."""

    code = "intake.station_busy"
    cause = "Another intake is running at the station in {directory}; only one intake can write at a time."
    fix = "Wait until the other intake ends, or use another station: `{again} --station {directory}-2`"
    again: str = "?"
    directory: Path


class NothingTakenError(NotFoundError):
    """No chip was recorded yet."""

    code = "intake.nothing_taken"
    cause = (
        "The station in {directory} has recorded no chip since it started the bundle, so the bundle has nothing to "
        "hand over."
    )
    fix = "Record a chip first: `birthmark chip intake BOARD-0001 --station {directory}`"
    directory: Path
