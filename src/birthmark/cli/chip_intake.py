"""`birthmark chip intake`: record secure elements and their boards on a production line."""

import getpass
import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from birthmark.cli.input_files import about, read_file
from birthmark.cli.option_checks_and_confirmation import only, only_typed
from birthmark.cli.options.chip_and_pin import CHIP_OPTIONS, ChipOutputOptions
from birthmark.cli.output.command_output import SOME_ROWS_REFUSED, emit, print_row_error
from birthmark.cli.output.table import format_count
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.errors import BirthmarkError
from birthmark.keys.errors import PinWrongError
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_library_lifecycle import stop_library
from birthmark.keys.possession import sign_nonce
from birthmark.manifests.bundle.chip_intake_errors import BundleDamagedError, ManufacturerUnknownError, NotThisChipError
from birthmark.manifests.bundle.chip_proof_rules import check_names, path_above, root_name
from birthmark.manifests.bundle.intake_records import ChipIntake
from birthmark.manifests.bundle.station import Station, open_station
from birthmark.pki.certificates import Certificate, parse_bundle
from birthmark.pki.path_validation import SignatureCache
from birthmark.pki.single_certificate_checks import ChainError
from birthmark.secure_elements.element_session import Element
from birthmark.text_file_encodings import plain_text, utf_16_of
from birthmark.untrusted_json_and_text import printable

_MAX_SCAN_BYTES, _MAX_LIST_BYTES = 1024, 1024 * 1024


@dataclass(frozen=True, slots=True)
class StationOptions:
    """Bundle and operator of an intake station."""

    directory: Annotated[
        Path,
        typer.Option(
            "--station",
            envvar="BIRTHMARK_STATION",
            file_okay=False,
            help="Directory of the station; created at first use.",
        ),
    ] = Path("station")
    name: Annotated[
        str | None, typer.Option("--name", help="Name of a new station. Default: the directory's name.")
    ] = None
    operator: Annotated[
        str | None,
        typer.Option(envvar="BIRTHMARK_OPERATOR", help="Operator who records the chips. Default: the logged-in user."),
    ] = None

    @property
    def who(self) -> str:
        try:
            return self.operator or getpass.getuser()
        except (KeyError, OSError) as error:  # a user without a name, in containers
            raise typer.BadParameter("specify the operator who records the chips", param_hint="--operator") from error

    def opened(self, *, may_begin: bool) -> AbstractContextManager[Station]:
        """Open the station, and report entries lost in a power failure."""
        check_names(operator=self.who)
        if (self.directory / "station.pem").exists():
            only_typed(False, f"for a new station, and {self.directory} has its name", "--name")
        elif may_begin:
            check_names(station=self.name or self.directory.resolve().name)
        return open_station(
            self.directory, clock=SystemClock(), entropy=SystemEntropy(), name=self.name, may_begin=may_begin
        )


@dataclass(slots=True)
class IntakeSession:
    """Settings shared by all secure elements of a run; a PIN from a prompt or descriptor is read once."""

    chip: ChipOutputOptions
    key: str | None
    certificates: tuple[Certificate, ...]
    roots: tuple[Certificate, ...]
    operator: str
    pin: Pin | None = None

    def take(self, board: str, station: Station) -> dict[str, object]:
        """Record the connected secure element; return the written entry. Raise an error if it is rejected."""
        check_names(board=board)
        element, pin = self.chip.open_by(self.pin or self.chip.pin())
        self.pin = pin if self.chip.pin_file is None else None
        with element:
            key = element.key(self.key)
            chain = self.certificates or _chain_in(element, self.key)
            if chain[0].public_key() != key.public_key:
                raise NotThisChipError(subject=chain[0].subject_text, board=board)
            wish = self._wish(board, chain)
            asked = station.ask(wish)
            proof = sign_nonce(key, asked.nonce)
        taken = station.take(wish, asked, proof)
        return {
            "board": board,
            "device": chain[0].subject_cn,
            "thumbprint": chain[0].thumbprint.hex(),
            "operator": self.operator,
            "station": station.identity.name,
            "root": wish.root,
            "bundle": str(taken.bundle),
            "line": taken.line,
        }

    def _wish(self, board: str, chain: tuple[Certificate, ...]) -> ChipIntake:
        """Return the intake entry with the chain up to the manufacturer's root.

        The chain is complete even if the secure element does not store the root.
        """
        if not self.roots:
            return ChipIntake(board, self.operator, chain)
        try:
            path = path_above(chain, self.roots, SystemClock().now(), SignatureCache())
        except ChainError as error:
            detail = error.explain_cause().rstrip(".")
            raise ManufacturerUnknownError(subject=chain[0].subject_text, detail=detail) from error
        return ChipIntake(board, self.operator, path[:-1] or path, root_name(path))


def intake(
    chip: ChipOutputOptions,
    where: StationOptions,
    board: Annotated[str | None, typer.Argument(help="Serial number of the chip's board.")] = None,
    key: Annotated[str | None, typer.Option(help="Object ID, label, or id:HEX. Default: the identity key.")] = None,
    cert: Annotated[
        Path | None, typer.Option(help="The chip's certificate and intermediate CAs, if the chip holds none.")
    ] = None,
    trust_root: Annotated[
        list[Path] | None, typer.Option(help="Root CAs of the chips' manufacturer, PEM; may be repeated.")
    ] = None,
    loop: Annotated[
        bool, typer.Option("--loop", help="Read one serial number per line from standard input, for one chip each.")
    ] = False,
    seal: Annotated[
        bool, typer.Option("--seal", help="Seal the bundle for handover; the next chip starts a new bundle.")
    ] = (False),
) -> None:
    """Record a chip at the production line.

    Verifies that its key is in the chip and binds it to a board and an operator.

    Each chip adds a signed, chained line to the station's bundle, the input of `manifest verify` and `device
    enroll-list`.
    """
    only(not seal, "to a chip, not with --seal", key=key, cert=cert, trust_root=trust_root, loop=loop)
    only_typed(not seal, "to recording a chip; --seal needs no chip", *CHIP_OPTIONS)
    if (board is not None) + loop + seal != 1:
        raise typer.BadParameter("specify a board's serial number, or --loop, or --seal", param_hint="BOARD")
    if board is not None:
        check_names(board=board)
    with where.opened(may_begin=not seal) as station:
        if station.torn is not None:
            typer.echo(f"A power loss cut the last line, now in {station.torn}. Take that board in again.", err=True)
        if seal:
            path, chips = station.seal()
            certificate = where.directory / "station.pem"
            emit(chip.as_json, {"bundle": str(path), "chips": chips, "station_certificate": str(certificate)})
            return
        line = IntakeSession(chip, key, _read(cert), tuple(c for p in trust_root or () for c in _read(p)), where.who)
        if board is not None:
            _tell(line.take(board, station), as_json=chip.as_json)
        elif not _take_all(line, station, as_json=chip.as_json):
            raise typer.Exit(SOME_ROWS_REFUSED)


# ---- inside


def _chain_in(element: Element, key: str | None) -> tuple[Certificate, ...]:
    return element.with_issuers(element.get_stored_certificate(key))


def _read(path: Path | None) -> tuple[Certificate, ...]:
    if path is None:
        return ()
    with about(path):
        return parse_bundle(read_file(path))


def _take_all(line: IntakeSession, station: Station, *, as_json: bool) -> bool:
    """Record a secure element for each scanned serial number; return whether all were accepted."""
    refused = taken = 0
    for board in _scanned():
        try:
            row = line.take(board, station)
        except (BundleDamagedError, PinWrongError):
            raise
        except BirthmarkError as error:
            refused += 1
            _tell_refused(board, error, as_json=as_json)
        else:
            taken += 1
            _tell(row, as_json=as_json)
        stop_library()  # only a restart detects the next chip
    typer.echo(f"{format_count(taken, 'chip')} recorded, {refused} refused.", err=True)
    return not refused


def _scanned() -> Iterator[str]:
    """Yield serial numbers from standard input, such as those of a barcode scanner."""
    while True:
        if sys.stdin.isatty():
            typer.echo(
                "Insert the next chip, then enter its board's serial number (stop with Ctrl-D): ", nl=False, err=True
            )
        raw = sys.stdin.buffer.readline(_MAX_SCAN_BYTES)
        if not raw:
            return
        if utf_16_of(raw) is not None:  # from a file, not a scanner
            raw += sys.stdin.buffer.read(_MAX_LIST_BYTES)
        for line in plain_text(raw).splitlines():
            if board := line.decode("utf-8", "surrogateescape").strip():
                yield board


def _tell(row: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(row))
        return
    word = typer.style("TAKEN  ", fg=typer.colors.GREEN, bold=True)
    checked = f"root {row['root']}" if row["root"] else "manufacturer not verified"
    told = f"  {row['board']}  {row['device']}  {checked}  line {row['line']} of {row['bundle']}"
    typer.echo(word + printable(told))


def _tell_refused(board: str, error: BirthmarkError, *, as_json: bool) -> None:
    if not as_json:
        word = typer.style("REFUSED", fg=typer.colors.RED, bold=True)
        typer.echo(word + printable(f"  {board}  {error}"))
    print_row_error(error, {"board": board}, as_json=as_json)
