"""`birthmark aws rule` and `birthmark aws stream`: which messages leave, where to, and what stands for Kinesis."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from birthmark.cli.common import emit, read_text, say
from birthmark.cli.confirmation import agree, only
from birthmark.cli.json_input import object_of
from birthmark.cli.server_client import ListOptions, RemoveOptions, ServerOutputOptions, at
from birthmark.cli.stream_reader import StreamReading, read
from birthmark.untrusted_text import decode_json

_COLUMNS = ("rule", "enabled", "topic", "matched", "sent", "waiting", "dead", "created")
_DEAD_COLUMNS = ("at", "action", "topic", "client", "tries", "problem")
Rule = Annotated[str, typer.Argument(metavar="RULE", help="As `birthmark aws rule ls` shows it.")]
Stream = Annotated[str, typer.Argument(metavar="STREAM", help="As `birthmark aws stream ls` shows it.")]


def list_rules(server: ListOptions) -> None:
    """List the rules: what each selected and sent since the server began, and what waits or failed."""
    server.show("aws", "rules", columns=_COLUMNS, nothing="There is no rule.")


def show_rule(server: ServerOutputOptions, rule: Rule) -> None:
    """Show a rule whole, as JSON, with what each of its actions has waiting."""
    typer.echo(json.dumps(server.client.get(at("aws", "rules", rule)), indent=None if server.as_json else 2))


def create_rule(
    server: ServerOutputOptions,
    rule: Annotated[str, typer.Argument(metavar="RULE", help="Up to 128 letters, digits and _.")],
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="sql, actions and errorAction: JSON, as at AWS.")
    ],
) -> None:
    """Make a rule from FILE, the same that `aws iot create-topic-rule --topic-rule-payload` takes."""
    server.do("aws", "rules", rule=rule, payload=_read(file))


def _read(file: Path) -> dict[str, Any]:
    return dict(object_of(read_text(file), f"what is in {file}") or {})


def try_rule(
    server: ServerOutputOptions,
    topic: Annotated[str, typer.Option(help="The topic of the message.")],
    payload: Annotated[str, typer.Option(help="The message.")],
    sql: Annotated[str | None, typer.Option(help="A statement that is on no record.")] = None,
    rule: Annotated[str | None, typer.Option(help="A rule on record.")] = None,
    client: Annotated[str, typer.Option(help="Who would publish.")] = "tester",
) -> None:
    """Show what a statement, or a rule, would make of a message. Nothing is sent."""
    if (sql is None) == (rule is None):
        raise typer.BadParameter("say which statement: --sql TEXT or --rule RULE")
    told = {"topic": topic, "payload": payload, "sql": sql, "rule": rule, "client": client}
    found = server.client.post(at("aws", "rules-test"), told)
    if not _is_object(payload):
        typer.echo("The message is not a JSON object: the statement finds no fields in it.", err=True)
    if server.as_json:
        emit(server.as_json, found)
        return
    if not found["matches"]:
        typer.echo("The topic does not fit the rule's filter: it would never see this message.")
    elif not found["selected"]:
        typer.echo("WHERE is not true for this message: nothing would be sent.")
    else:
        typer.echo(found["payload"])
        for action in found["actions"]:
            typer.echo(f"  {action['action']}: {json.dumps(action['address'])}")
            if action.get("problem"):
                typer.echo(f"    fails: {action['problem']}")


def _is_object(payload: str) -> bool:
    try:
        return isinstance(decode_json(payload), dict)
    except (ValueError, RecursionError):
        return False


def enable_rule(server: ServerOutputOptions, rule: Rule) -> None:
    """Switch a rule on."""
    server.do("aws", "rules", rule, "enable")


def disable_rule(server: ServerOutputOptions, rule: Rule) -> None:
    """Switch a rule off: it sees no more messages; what waits goes out."""
    server.do("aws", "rules", rule, "disable")


def dead(server: ListOptions, rule: Rule) -> None:
    """List what a rule could not send, and why."""
    server.show("aws", "rules", rule, "dead", columns=_DEAD_COLUMNS, nothing="Nothing was put aside.")


def replay(server: ServerOutputOptions, rule: Rule) -> None:
    """Send what was put aside once more."""
    found = server.client.post(at("aws", "rules", rule, "replay"), {})
    say(server.as_json, found, f"Queued {found['queued']} of {rule} again.")


def remove_rule(server: RemoveOptions, rule: Rule) -> None:
    """Remove a rule, and what it has waiting."""
    server.remove("aws", "rules", rule, what=f"the rule {rule}, and what it has waiting")


# ---- streams


def list_streams(server: ListOptions) -> None:
    """List the streams."""
    server.show("aws", "streams", columns=("stream", "created"), nothing="There is no stream.")


def create_stream(
    server: ServerOutputOptions,
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="Up to 128 letters, digits and _ . -.")],
) -> None:
    """Make a stream: rules write to it by the action kinesis, with its name."""
    server.do("aws", "streams", stream=stream)


def read_stream(
    server: ServerOutputOptions,
    stream: Stream,
    key: Annotated[str | None, typer.Option(help="Only what has this partition key.")] = None,
    since: Annotated[
        str | None, typer.Option(help="From when: 10m, 2026-11-21T10:00:00Z; its beginning unless said otherwise.")
    ] = None,
    after: Annotated[str | None, typer.Option(help="From a position, as an earlier run said it.")] = None,
    consumer_group: Annotated[
        str | None, typer.Option(help="From where this group is; the server notes how far it came.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what comes, until Ctrl-C.")] = False,
) -> None:
    """Show what a stream has, from its beginning unless said otherwise."""
    only(key is None, "without --key: a group reads the stream", consumer_group=consumer_group)
    only(after is None, "without --after", since=since, consumer_group=consumer_group)
    if since is None and after is None and consumer_group is None:
        since = "beginning"
    asked = StreamReading(since, after, consumer_group, follow)
    read(server, ("aws", "streams", stream), asked, lambda row: "  ".join((row["at"], row["body"])), device=key)


def remove_stream(server: RemoveOptions, stream: Stream) -> None:
    """Remove a stream with what it holds."""
    agree(f"Remove the stream {stream}, with what it holds?", yes=server.yes)
    server.client.delete(at("aws", "streams", stream))
    say(server.as_json, {"removed": stream}, f"Removed the stream {stream}.")
