"""`birthmark events` and `birthmark webhook`: what happens at a server, and who is told of it."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from birthmark import atomic_files
from birthmark.cli.common import FileExistsAlreadyError, emit, say, written_as
from birthmark.cli.confirmation import agree
from birthmark.cli.server_client import ListOptions, RemoveOptions, ServerOutputOptions, at
from birthmark.cli.tail import until_interrupted
from birthmark.untrusted_text import printable

_COLUMNS = ("name", "url", "types", "paused", "failing_since", "problem")
HookArgument = Annotated[str, typer.Argument(metavar="WEBHOOK", help="As `birthmark webhook ls` shows it.")]
SecretOption = Annotated[
    Path | None, typer.Option("--secret-file", help="Write the secret there, for its owner alone, and do not show it.")
]


def events(
    server: ServerOutputOptions,
    kind: Annotated[str, typer.Option("--type", help="Only such types: birthmark.device.* is all of devices.")] = "*",
    after: Annotated[str, typer.Option(metavar="PLACE", help="Only what came after this place of an event.")] = "",
    begin: Annotated[bool, typer.Option("--begin", help="From the first on, in the place of from now on.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on, until Ctrl-C.")] = False,
) -> None:
    """Show what happens, as CloudEvents: what came since a place, or from now on.

    With --json each line has the event and its place, from which a program goes on after it was cut off.
    """
    follows = follow or not (after or begin)
    if follows and not server.as_json:
        typer.echo("Waiting for events; Ctrl-C ends.", err=True)
    query = {"after": after, "begin": str(begin).lower(), "type": kind, "follow": str(follows).lower()}
    with until_interrupted():
        for part in server.client.lines("/events", **query):
            if (event := part.get("event")) is not None:
                words = (event["time"][:19], event["type"], event["subject"], event["data"]["actor"])
                say(server.as_json, part, printable("  ".join(words)))
                sys.stdout.flush()


def create(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(metavar="WEBHOOK", help="A name for it.")],
    url: Annotated[str, typer.Argument(metavar="URL", help="Where it is told, by HTTPS.")],
    types: Annotated[
        list[str] | None, typer.Option("--type", help="Only such types of events, also as patterns; may be repeated.")
    ] = None,
    secret_file: SecretOption = None,
) -> None:
    """Tell a receiver what happens from now on. The secret that it checks signatures with is shown this once."""
    _free(secret_file)
    made = server.client.post("/webhooks", {"name": name, "url": url, "types": types or []})
    _show(server, made, secret_file)


def list_(server: ListOptions) -> None:
    """List the receivers, and how each is."""
    rows = server.client.rows("/webhooks")
    told = (row if server.as_json else {**row, "types": ", ".join(row["types"])} for row in rows)
    server.show_rows(told, _COLUMNS, "There is no webhook.")


def remove(server: RemoveOptions, name: HookArgument) -> None:
    """Tell a receiver nothing any more; what was put aside for it goes, too."""
    server.remove("webhooks", name, what=f"the webhook {name}, with what was put aside for it")


def rotate(server: ServerOutputOptions, name: HookArgument, secret_file: SecretOption = None) -> None:
    """Give a receiver another secret; until the next time it is told by both."""
    _free(secret_file)
    _show(server, server.client.post(at("webhooks", name, "secret")), secret_file)


def pause(server: ServerOutputOptions, name: HookArgument) -> None:
    """Tell a receiver nothing for now; it gets all of it later."""
    emit(server.as_json, server.client.patch(at("webhooks", name), {"paused": True}))


def resume(server: ServerOutputOptions, name: HookArgument) -> None:
    """Go on telling a receiver, at once."""
    emit(server.as_json, server.client.patch(at("webhooks", name), {"paused": False}))


def dead(server: ListOptions, name: HookArgument) -> None:
    """List what a receiver refused again and again, and was put aside."""
    server.show("webhooks", name, "dead", columns=("id", "at", "events", "problem"), nothing="Nothing was put aside.")


def replay(
    server: ServerOutputOptions,
    name: HookArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Send a receiver once more what was put aside, oldest first."""
    agree(f"Send {printable(name)} once more what it refused?", yes=yes)
    emit(server.as_json, server.client.post(at("webhooks", name, "replay"), {}))


def _free(secret_file: Path | None) -> None:
    if secret_file is not None and secret_file.exists():
        raise FileExistsAlreadyError(path=secret_file)


def _show(server: ServerOutputOptions, made: dict[str, object], secret_file: Path | None) -> None:
    if secret_file is not None:
        with written_as(secret_file):
            atomic_files.create(secret_file, f"{made.pop('secret')}\n".encode())
    emit(server.as_json, made if server.as_json else {k: _text(v) for k, v in made.items()})


def _text(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value if value is not None else json.dumps(None)
