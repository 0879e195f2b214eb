"""`birthmark events` and `birthmark webhook`: events of a server, and their webhooks."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from birthmark import atomic_files
from birthmark.cli.option_checks_and_confirmation import confirm
from birthmark.cli.options.server import ListOptions, RemoveOptions, ServerOutputOptions, at
from birthmark.cli.output.command_output import FileExistsAlreadyError, emit, say, written_as
from birthmark.cli.output.follow_mode import until_interrupted
from birthmark.untrusted_json_and_text import printable

_COLUMNS = ("name", "url", "types", "form", "paused", "failing_since", "problem")
HookArgument = Annotated[str, typer.Argument(metavar="WEBHOOK", help="Webhook, as listed by `birthmark webhook ls`.")]
SecretOption = Annotated[
    Path | None,
    typer.Option(
        "--secret-file", help="File for the secret, readable by its owner only; the secret is then not printed."
    ),
]


class EventFormIs(StrEnum):
    """Form in which a webhook receives events."""

    CLOUDEVENTS = "cloudevents"
    EVENTGRID = "eventgrid"


def events(
    server: ServerOutputOptions,
    kind: Annotated[
        str, typer.Option("--type", help="Event type; birthmark.device.* matches all device events.")
    ] = "*",
    after: Annotated[str, typer.Option(metavar="POSITION", help="Position of an event to start after.")] = "",
    begin: Annotated[
        bool, typer.Option("--begin", help="Start with the first stored event instead of new ones.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Continue with new events until Ctrl-C.")] = False,
) -> None:
    """Print events as CloudEvents.

    Starts after a position, or with new events.

    With --json, each line has the event and its position, so that a program can continue after an interruption.
    """
    follows = follow or not (after or begin)
    if follows and not server.as_json:
        typer.echo("Waiting for events; stop with Ctrl-C.", err=True)
    query = {"after": after, "begin": str(begin).lower(), "type": kind, "follow": str(follows).lower()}
    with until_interrupted():
        for part in server.client.lines("/events", **query):
            if (event := part.get("event")) is not None:
                words = (event["time"][:19], event["type"], event["subject"], event["data"]["actor"])
                say(server.as_json, part, printable("  ".join(words)))
                sys.stdout.flush()


def create(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(metavar="WEBHOOK", help="Name of the webhook.")],
    url: Annotated[str, typer.Argument(metavar="URL", help="HTTPS URL that receives the events.")],
    types: Annotated[list[str] | None, typer.Option("--type", help="Event type or pattern; may be repeated.")] = None,
    form: Annotated[
        EventFormIs, typer.Option("--format", help="Form of the events; eventgrid validates the receiver first.")
    ] = EventFormIs.CLOUDEVENTS,
    secret_file: SecretOption = None,
) -> None:
    """Create a webhook that sends events to a URL.

    The secret for verifying signatures is shown only once.
    """
    _free(secret_file)
    made = server.client.post("/webhooks", {"name": name, "url": url, "types": types or [], "form": form.value})
    _show(server, made, secret_file)


def list_(server: ListOptions) -> None:
    """List the webhooks and their delivery status."""
    rows = server.client.rows("/webhooks")
    told = (row if server.as_json else {**row, "types": ", ".join(row["types"])} for row in rows)
    server.show_rows(told, _COLUMNS, "No webhooks.")


def remove(server: RemoveOptions, name: HookArgument) -> None:
    """Delete a webhook and its dead letters."""
    server.remove("webhooks", name, subject=f"the webhook {name} and its dead letters")


def rotate(server: ServerOutputOptions, name: HookArgument, secret_file: SecretOption = None) -> None:
    """Replace a webhook's secret.

    Events are signed with both secrets until the next rotation.
    """
    _free(secret_file)
    _show(server, server.client.post(at("webhooks", name, "secret")), secret_file)


def pause(server: ServerOutputOptions, name: HookArgument) -> None:
    """Pause a webhook.

    It receives all events after it is resumed.
    """
    emit(server.as_json, server.client.patch(at("webhooks", name), {"paused": True}))


def resume(server: ServerOutputOptions, name: HookArgument) -> None:
    """Resume a webhook immediately."""
    emit(server.as_json, server.client.patch(at("webhooks", name), {"paused": False}))


def dead(server: ListOptions, name: HookArgument) -> None:
    """List a webhook's dead letters.

    These are events that the receiver rejected repeatedly.
    """
    server.show("webhooks", name, "dead", columns=("id", "at", "events", "problem"), nothing="No dead letters.")


def replay(
    server: ServerOutputOptions,
    name: HookArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Skip the confirmation prompt.")] = False,
) -> None:
    """Resend a webhook's dead letters, oldest first."""
    confirm(f"Resend the dead letters of {printable(name)}?", yes=yes)
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
