"""Options that select a secure element and its PIN: from a file of mode 0600, a descriptor, or a prompt."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from birthmark.cli.command_factory import JsonOption
from birthmark.cli.output.command_output import emit, write_result
from birthmark.keys.errors import PinMissingError
from birthmark.keys.pin import Pin
from birthmark.keys.pkcs11_library_lifecycle import find_softhsm
from birthmark.secure_elements.backends import open_chip
from birthmark.secure_elements.element_session import Element

CHIP_OPTIONS = ("--module", "--token", "--slot", "--pin-file", "--pin-fd")


@dataclass(frozen=True, slots=True)
class ChipOptions:
    """Token selection: by --token, by --slot, or the only one."""

    module: Annotated[
        Path | None,
        typer.Option(
            envvar="BIRTHMARK_PKCS11_MODULE",
            help="The chip's PKCS#11 library, or cryptoauthlib[:i2c,0x6A,1]. Default: SoftHSM.",
        ),
    ] = None
    token: Annotated[str | None, typer.Option(envvar="BIRTHMARK_TOKEN", help="Label of the token.")] = None
    slot: Annotated[int | None, typer.Option(help="Slot number, if labels are not unique.")] = None
    pin_file: Annotated[
        Path | None, typer.Option(envvar="BIRTHMARK_PIN_FILE", help="File of mode 0600 with the PIN.")
    ] = None
    pin_fd: Annotated[int | None, typer.Option(help="Open file descriptor to read the PIN from.")] = None

    @classmethod
    def from_environment(cls) -> "ChipOptions":
        """Return the options from environment variables."""
        module, slot = os.environ.get("BIRTHMARK_PKCS11_MODULE"), os.environ.get("BIRTHMARK_SLOT")
        pin_file = os.environ.get("BIRTHMARK_PIN_FILE")
        return cls(
            Path(module) if module else None,
            os.environ.get("BIRTHMARK_TOKEN"),
            int(slot) if slot else None,
            Path(pin_file) if pin_file else None,
        )

    @property
    def library(self) -> Path:
        return self.module or find_softhsm()

    def pin(self) -> Pin | None:
        """Return the given PIN; a descriptor is read once."""
        if self.pin_fd is not None:
            return Pin.from_descriptor(self.pin_fd)
        return None if self.pin_file is None else Pin.from_file(self.pin_file)

    def open(self) -> Element:
        """Open the token; prompt for the PIN on a terminal."""
        return self.open_by(self.pin())[0]

    def open_by(self, pin: Pin | None) -> tuple[Element, Pin | None]:
        """Open the token with a known PIN or a prompt; return the token and the PIN that opened it."""
        try:
            return open_chip(self.library, label=self.token, slot_id=self.slot, pin=pin), pin
        except PinMissingError as missing:
            if not sys.stdin.isatty():
                raise
            pin = Pin.prompt(missing.facts["token"])
            return open_chip(self.library, label=self.token, slot_id=self.slot, pin=pin), pin


@dataclass(frozen=True, slots=True)
class ChipOutputOptions(ChipOptions):
    """Token selection and output format."""

    as_json: JsonOption = False

    def result(self, out: Path | None, text: str, row: Mapping[str, Any]) -> None:
        """Write text to a file or to standard output, and report what it is."""
        if not self.as_json or out is not None:
            write_result(out, text)
        if self.as_json:
            emit(True, {**row, "pem": text, "file": None if out is None else str(out)})
        elif out is not None:
            typer.echo(f"{out}: {next(iter(row.values()))}", err=True)
