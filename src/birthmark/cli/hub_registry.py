"""`birthmark hub export`, `birthmark hub import`: a hub's devices, modules and twins as lines of JSON."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from birthmark import atomic_files
from birthmark.cli.hub import HubOption
from birthmark.cli.input_files import open_file
from birthmark.cli.options.server import ServerOutputOptions, at
from birthmark.cli.output.command_output import say

_BATCH, _BATCH_BYTES = 100, 256 * 1024
_SOME_REJECTED = 7
_MAX_LINE_BYTES = 256 * 1024


def export_registry(
    server: ServerOutputOptions,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="New file.")],
    hub: HubOption = "birthmark",
    keys: Annotated[bool, typer.Option("--keys", help="Include symmetric keys.")] = False,
) -> None:
    """Export the devices of a hub.

    The file has one line of JSON per device and module, with its twin.
    """
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
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File of an export.")],
    hub: HubOption = "birthmark",
) -> None:
    """Import devices into a hub.

    The file is that of an export. Devices that it does not name remain unchanged. Without keys in the file, existing
    devices keep their keys, and new ones get new keys. Prints each rejected line.
    """
    done = imported = 0
    for lines in _batches(file):
        answer = server.client.post(at("hubs", hub, "registry"), {"lines": lines})
        for error in answer["errors"]:
            number = done + error["line"]
            say(server.as_json, error | {"line": number}, f"line {number}: {error['code']}: {error['message']}")
        done += len(lines)
        imported += answer["imported"]
    say(server.as_json, {"imported": imported}, f"Imported {imported} of {done} lines.")
    if imported < done:
        raise typer.Exit(_SOME_REJECTED)


def _batches(file: Path) -> Iterator[list[str]]:
    """Yield the lines of a file in batches; a line that is too long is cut, so that the server rejects it."""
    with open_file(file) as opened:
        batch: list[str] = []
        size = 0
        while line := opened.readline(_MAX_LINE_BYTES + 1):
            rest = line
            while len(rest) > _MAX_LINE_BYTES and not rest.endswith(b"\n"):
                rest = opened.readline(_MAX_LINE_BYTES + 1)
            if not line.strip():
                continue
            batch.append(line[:_MAX_LINE_BYTES].decode(errors="replace"))
            size += len(line)
            if len(batch) == _BATCH or size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch
