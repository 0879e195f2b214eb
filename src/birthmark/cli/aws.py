"""`birthmark aws`: access keys, resources, certificates, shadows and live messages of the AWS account."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from birthmark.cli.input_files import read_text
from birthmark.cli.option_checks_and_confirmation import only
from birthmark.cli.options.json_arguments import object_of
from birthmark.cli.options.server import ListOptions, RemoveOptions, ServerOutputOptions, at
from birthmark.cli.output.command_output import say
from birthmark.cli.output.follow_mode import announce_first, until_interrupted
from birthmark.mqtt.topics import is_valid_filter, split_shared

_KEY_COLUMNS = ("access_key_id", "name", "may", "created")
_THING_COLUMNS = ("thing", "type", "certificates")
_CERTIFICATE_COLUMNS = ("certificate", "common_name", "status", "things", "policies")


def add_key(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="Purpose of the access key, shown in lists.")] = "",
    policy: Annotated[
        Path | None, typer.Option(help="File with an IAM policy for the key. Default: all permissions.")
    ] = None,
) -> None:
    """Create an access key.

    The secret is shown only once.
    """
    server.do("aws", "keys", name=name, policy=None if policy is None else _policy_in(policy))


def _policy_in(file: Path) -> object:
    return object_of(read_text(file), f"the policy in {file}")


def list_keys(server: ListOptions) -> None:
    """List the access keys without their secrets."""
    server.show("aws", "keys", columns=_KEY_COLUMNS, nothing="No access keys.")


def remove_key(
    server: RemoveOptions,
    access_key_id: Annotated[str, typer.Argument(help="Access key ID, as listed by `birthmark aws key ls`.")],
) -> None:
    """Delete an access key.

    Requests signed with it are rejected immediately.
    """
    server.remove("aws", "keys", access_key_id, subject=f"the access key {access_key_id}, which signs nothing then")


def things(server: ListOptions) -> None:
    """List things and their certificates."""
    server.show("aws", "things", columns=_THING_COLUMNS, nothing="No things.")


def certificates(server: ListOptions) -> None:
    """List certificates with their things and policies."""
    server.show("aws", "certificates", columns=_CERTIFICATE_COLUMNS, nothing="No certificates.")


def monitor(
    server: ServerOutputOptions,
    topic_filter: Annotated[
        str, typer.Argument(metavar="FILTER", help="MQTT topic filter; matches $aws/… only if it names $aws.")
    ],
) -> None:
    """Print messages published to FILTER until Ctrl-C.

    No MQTT client is created for it.
    """
    share, rest = split_shared(topic_filter)
    if share is not None:
        raise typer.BadParameter(f"shared subscriptions are not supported here: use {rest}")
    if not is_valid_filter(topic_filter):
        raise typer.BadParameter(
            f"{topic_filter!r} is not a topic filter: + must be alone in its level, # alone and last"
        )
    with until_interrupted():
        for part in announce_first(server.client.lines(at("aws", "monitor"), filter=topic_filter)):
            for row in part["items"]:
                say(server.as_json, row, "  ".join((row["at"], row["topic"], row["body"])))
            sys.stdout.flush()
            if lost := part["lost"]:
                typer.echo(f"{lost} messages were skipped: they arrived faster than they could be printed.", err=True)


def shadow(
    server: ServerOutputOptions,
    thing: Annotated[str, typer.Argument(metavar="THING", help="Thing name; case-sensitive.")],
    name: Annotated[
        str | None, typer.Option("--shadow-name", help="Named shadow. Default: the classic shadow.")
    ] = None,
    desired: Annotated[
        str | None, typer.Option(help="JSON merge patch of the desired state; null removes a key.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the shadow.")] = False,
) -> None:
    """Show, update or delete a thing's shadow as JSON.

    The desired state is updated first.
    """
    only(not delete, "without --delete", desired=desired)
    parts = ("aws", "shadows", thing, *([] if name is None else [name]))
    if delete:
        server.client.delete(at(*parts))
        say(server.as_json, {"removed": thing}, f"Removed the shadow of {thing}.")
        return
    patch = object_of(desired, "--desired")
    shown = server.client.get(at(*parts)) if patch is None else server.client.patch(at(*parts), {"desired": patch})
    typer.echo(json.dumps(shown, indent=None if server.as_json else 2))
