"""`birthmark aws`: access keys of the server's AWS account, what is in it, and what is published there."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from birthmark.cli.common import read_text, say
from birthmark.cli.confirmation import only
from birthmark.cli.json_input import object_of
from birthmark.cli.server_client import ListOptions, RemoveOptions, ServerOutputOptions, at
from birthmark.cli.tail import told, until_interrupted
from birthmark.mqtt.topics import is_valid_filter, split_shared

_KEY_COLUMNS = ("access_key_id", "name", "may", "created")
_THING_COLUMNS = ("thing", "type", "certificates")
_CERTIFICATE_COLUMNS = ("certificate", "common_name", "status", "things", "policies")


def add_key(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="What it is for; shown in lists.")] = "",
    policy: Annotated[
        Path | None, typer.Option(help="File of an IAM policy: what it may do; everything without one.")
    ] = None,
) -> None:
    """Make an access key. Its secret is shown this once."""
    server.do("aws", "keys", name=name, policy=None if policy is None else _policy_in(policy))


def _policy_in(file: Path) -> object:
    return object_of(read_text(file), f"the policy in {file}")


def list_keys(server: ListOptions) -> None:
    """List the access keys, without their secrets."""
    server.show("aws", "keys", columns=_KEY_COLUMNS, nothing="There is no access key.")


def remove_key(
    server: RemoveOptions, access_key_id: Annotated[str, typer.Argument(help="As `birthmark aws key ls` shows it.")]
) -> None:
    """Remove an access key; what is signed with it is refused from now on."""
    server.remove("aws", "keys", access_key_id, what=f"the access key {access_key_id}, which signs nothing then")


def things(server: ListOptions) -> None:
    """List the things and their certificates."""
    server.show("aws", "things", columns=_THING_COLUMNS, nothing="There is no thing.")


def certificates(server: ListOptions) -> None:
    """List the certificates, their things and policies."""
    server.show("aws", "certificates", columns=_CERTIFICATE_COLUMNS, nothing="There is no certificate.")


def monitor(
    server: ServerOutputOptions,
    topic_filter: Annotated[
        str, typer.Argument(metavar="FILTER", help="MQTT topic filter; $aws/… only when it is named.")
    ],
) -> None:
    """Show the messages published to FILTER as they come, until Ctrl-C; no client is made for it."""
    share, rest = split_shared(topic_filter)
    if share is not None:
        raise typer.BadParameter(f"who looks on takes no share of messages: ask for {rest}")
    if not is_valid_filter(topic_filter):
        raise typer.BadParameter(f"{topic_filter!r} is no topic filter: + is alone in its level, # alone and last")
    with until_interrupted():
        for part in told(server.client.lines(at("aws", "monitor"), filter=topic_filter)):
            for row in part["items"]:
                say(server.as_json, row, "  ".join((row["at"], row["topic"], row["body"])))
            sys.stdout.flush()
            if lost := part["lost"]:
                typer.echo(f"{lost} messages are missing here: they came faster than they were shown.", err=True)


def shadow(
    server: ServerOutputOptions,
    thing: Annotated[str, typer.Argument(metavar="THING", help="The thing's name; letter case counts.")],
    name: Annotated[
        str | None, typer.Option("--shadow-name", help="A named shadow, instead of the classic one.")
    ] = None,
    desired: Annotated[str | None, typer.Option(help="What is desired of it: a JSON patch, null removes.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the shadow.")] = False,
) -> None:
    """Show a thing's shadow, as JSON; change what is desired of it first, or delete it."""
    only(not delete, "without --delete", desired=desired)
    parts = ("aws", "shadows", thing, *([] if name is None else [name]))
    if delete:
        server.client.delete(at(*parts))
        say(server.as_json, {"removed": thing}, f"Removed the shadow of {thing}.")
        return
    patch = object_of(desired, "--desired")
    shown = server.client.get(at(*parts)) if patch is None else server.client.patch(at(*parts), {"desired": patch})
    typer.echo(json.dumps(shown, indent=None if server.as_json else 2))
