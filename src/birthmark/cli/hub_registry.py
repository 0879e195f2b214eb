"""`birthmark hub export`, `birthmark hub import`: a hub's devices, modules and twins as lines of JSON."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from birthmark import atomic_files
from birthmark.cli.hub import HubOption
from birthmark.cli.input_files import FileEncodingError, open_file
from birthmark.cli.options.server import ServerOutputOptions, at
from birthmark.cli.output.command_output import say
from birthmark.text_file_encodings import to_utf_8, utf_16_of

_BATCH, _BATCH_BYTES = 100, 256 * 1024
_SOME_REJECTED = 7
_MAX_LINE_BYTES = 256 * 1024
_HEAD_BYTES = 512
_IN_FOLDER = "devices.txt"


def export_registry(
    server: ServerOutputOptions,
    file: Annotated[Path, typer.Argument(metavar="FILE", help=f"New file, or a folder for a new file {_IN_FOLDER}.")],
    hub: HubOption = "birthmark",
    keys: Annotated[bool, typer.Option("--keys", help="Include symmetric keys.")] = False,
) -> None:
    """Export the devices of a hub.

    The file has one line of JSON per device and module, with its twin.
    """
    file = _within(file)
    if file.exists():
        raise typer.BadParameter(f"{file} exists; choose another file")
    count = 0
    with atomic_files.create_incrementally(file) as written:
        for line in server.client.lines(at("hubs", hub, "registry"), keys=str(keys).lower()):
            written.write(json.dumps(line).encode() + b"\n")
            count += 1
    say(server.as_json, {"exported": count}, f"Exported {count} devices and modules to {file}.")


def import_registry(
    server: ServerOutputOptions,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help=f"File of an export, or a folder with a file {_IN_FOLDER}.")
    ],
    hub: HubOption = "birthmark",
) -> None:
    """Import devices into a hub.

    The file is that of an export. Devices that it does not name remain unchanged. Without keys in the file, existing
    devices keep their keys, and new ones get new keys. Prints each rejected line.
    """
    done = imported = 0
    try:
        for batch in _batches(_within(file)):
            answer = server.client.post(at("hubs", hub, "registry"), {"lines": [*batch.values()]})
            numbers = [*batch]
            for error in answer["errors"]:
                number = numbers[error["line"] - 1]
                say(server.as_json, error | {"line": number}, f"line {number}: {error['code']}: {error['message']}")
            done += len(batch)
            imported += answer["imported"]
    except KeyboardInterrupt:
        typer.echo(f"Stopped: {imported} of {done} lines were imported. A repeated import is safe.", err=True)
        raise
    say(server.as_json, {"imported": imported}, f"Imported {imported} of {done} lines.")
    if imported < done:
        raise typer.Exit(_SOME_REJECTED)


def _within(file: Path) -> Path:
    return file / _IN_FOLDER if file.is_dir() else file


def _batches(file: Path) -> Iterator[dict[int, str]]:
    """Yield the lines of a file in batches, by number, with progress on a terminal.

    A line that is too long is cut, so that the server rejects it.
    """
    hidden = not sys.stderr.isatty()
    with (
        open_file(file) as opened,
        Progress(console=Console(stderr=True), transient=True, disable=hidden) as progress,
    ):
        head = opened.peek(_HEAD_BYTES)  # type: ignore[attr-defined] # a buffered file
        if utf_16_of(head) is not None:
            refusal = FileEncodingError(path=file, command=to_utf_8(file), detail="is UTF-16, not UTF-8")
            refusal.quote(fix=f"Write it as UTF-8, and import the new file: `{to_utf_8(file)}`.")
            raise refusal
        task = progress.add_task("Import", total=file.stat().st_size)
        batch: dict[int, str] = {}
        size = number = 0
        while line := opened.readline(_MAX_LINE_BYTES + 1):
            number += 1
            rest = line
            while len(rest) > _MAX_LINE_BYTES and not rest.endswith(b"\n"):
                rest = opened.readline(_MAX_LINE_BYTES + 1)
            text = line[:_MAX_LINE_BYTES].decode(errors="replace").removeprefix("\ufeff")
            if text.strip():
                batch[number] = text
            size += len(line)
            if len(batch) == _BATCH or size >= _BATCH_BYTES:
                if batch:
                    yield batch
                progress.update(task, completed=opened.tell())
                batch, size = {}, 0
        if batch:
            yield batch
