"""`birthmark aws rule` and `birthmark aws stream`: rule actions, and the local equivalent of Kinesis."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from birthmark.cli.input_files import read_text
from birthmark.cli.option_checks_and_confirmation import confirm, only
from birthmark.cli.options.json_arguments import object_of
from birthmark.cli.options.server import ListOptions, RemoveOptions, ServerOutputOptions, at
from birthmark.cli.output.command_output import emit, say
from birthmark.cli.output.server_stream_reader import StreamReading, read
from birthmark.untrusted_json_and_text import decode_json

_COLUMNS = ("rule", "enabled", "topic", "matched", "sent", "waiting", "dead", "created")
_DEAD_COLUMNS = ("at", "action", "topic", "client", "tries", "problem")
Rule = Annotated[str, typer.Argument(metavar="RULE", help="Topic rule, as listed by `birthmark aws rule ls`.")]
Stream = Annotated[str, typer.Argument(metavar="STREAM", help="Stream, as listed by `birthmark aws stream ls`.")]


def list_rules(server: ListOptions) -> None:
    """List the topic rules and their counters.

    Shows what each rule selected and sent since the server started, and what is queued or failed.
    """
    server.show("aws", "rules", columns=_COLUMNS, nothing="No rules.")


def show_rule(server: ServerOutputOptions, rule: Rule) -> None:
    """Show a topic rule as JSON, with each action's queue."""
    typer.echo(json.dumps(server.client.get(at("aws", "rules", rule)), indent=None if server.as_json else 2))


def create_rule(
    server: ServerOutputOptions,
    rule: Annotated[str, typer.Argument(metavar="RULE", help="Rule name: up to 128 letters, digits and _.")],
    file: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="File with sql, actions and errorAction: JSON, as at AWS."),
    ],
) -> None:
    """Create a topic rule from FILE.

    Use the same file as for `aws iot create-topic-rule --topic-rule-payload`.
    """
    server.do("aws", "rules", rule=rule, payload=_read(file))


def _read(file: Path) -> dict[str, Any]:
    return dict(object_of(read_text(file), f"the content of {file}") or {})


def try_rule(
    server: ServerOutputOptions,
    topic: Annotated[str, typer.Option(help="Topic of the message.")],
    payload: Annotated[str, typer.Option(help="Payload of the message.")],
    sql: Annotated[str | None, typer.Option(help="SQL statement to test without a rule.")] = None,
    rule: Annotated[str | None, typer.Option(help="Existing rule to test.")] = None,
    client: Annotated[str, typer.Option(help="Client ID of the publisher.")] = "tester",
) -> None:
    """Test a topic rule or a statement with a message.

    Nothing is sent.
    """
    if (sql is None) == (rule is None):
        raise typer.BadParameter("specify the statement: --sql TEXT or --rule RULE")
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
    """Enable a topic rule."""
    server.do("aws", "rules", rule, "enable")


def disable_rule(server: ServerOutputOptions, rule: Rule) -> None:
    """Disable a topic rule.

    It receives no more messages; queued messages are still sent.
    """
    server.do("aws", "rules", rule, "disable")


def dead(server: ListOptions, rule: Rule) -> None:
    """List a topic rule's dead letters and their errors."""
    server.show("aws", "rules", rule, "dead", columns=_DEAD_COLUMNS, nothing="No dead letters.")


def replay(server: ServerOutputOptions, rule: Rule) -> None:
    """Resend a topic rule's dead letters."""
    found = server.client.post(at("aws", "rules", rule, "replay"), {})
    say(server.as_json, found, f"Queued {found['queued']} of {rule} again.")


def remove_rule(server: RemoveOptions, rule: Rule) -> None:
    """Delete a topic rule and its queue."""
    server.remove("aws", "rules", rule, subject=f"the rule {rule} and its queued messages")


# ---- streams


def list_streams(server: ListOptions) -> None:
    """List the streams."""
    server.show("aws", "streams", columns=("stream", "created"), nothing="No streams.")


def create_stream(
    server: ServerOutputOptions,
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="Stream name: up to 128 letters, digits and _ . -.")],
) -> None:
    """Create a stream for the rule action kinesis.

    Rules write to it by its name.
    """
    server.do("aws", "streams", stream=stream)


def read_stream(
    server: ServerOutputOptions,
    stream: Stream,
    key: Annotated[str | None, typer.Option(help="Partition key of the records.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Start time: 10m, 2026-11-21T10:00:00Z. Default: start of the stream.")
    ] = None,
    after: Annotated[str | None, typer.Option(help="Start position, as printed by an earlier run.")] = None,
    consumer_group: Annotated[str | None, typer.Option(help="Consumer group; the server stores its position.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Continue with new records until Ctrl-C.")] = False,
) -> None:
    """Print the records of a stream.

    Default start: the beginning of the stream.
    """
    only(key is None, "without --key: a consumer group reads the complete stream", consumer_group=consumer_group)
    only(after is None, "without --after", since=since, consumer_group=consumer_group)
    if since is None and after is None and consumer_group is None:
        since = "beginning"
    asked = StreamReading(since, after, consumer_group, follow)
    read(server, ("aws", "streams", stream), asked, lambda row: "  ".join((row["at"], row["body"])), device=key)


def remove_stream(server: RemoveOptions, stream: Stream) -> None:
    """Delete a stream and its records."""
    confirm(f"Remove the stream {stream} and its records?", yes=server.yes)
    server.client.delete(at("aws", "streams", stream))
    say(server.as_json, {"removed": stream}, f"Removed the stream {stream}.")
