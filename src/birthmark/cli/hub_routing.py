"""`birthmark hub route`, `hub endpoint`, `hub enrichment`: message routing of a hub."""

import json
import sys
from typing import Annotated, Any

import typer

from birthmark.cli.hub import HubOption
from birthmark.cli.option_checks_and_confirmation import only
from birthmark.cli.options.json_arguments import object_of
from birthmark.cli.options.server import ListOptions, RemoveOptions, ServerOutputOptions, at
from birthmark.cli.output.command_output import emit, say
from birthmark.cli.output.follow_mode import announce_first, parse_since, until_interrupted
from birthmark.clock_and_entropy import SystemClock
from birthmark.sigint_delay import uninterrupted

RouteName = Annotated[str, typer.Argument(metavar="ROUTE", help="Route, as listed by `birthmark hub route ls`.")]
EndpointName = Annotated[
    str, typer.Argument(metavar="ENDPOINT", help="Endpoint, as listed by `birthmark hub endpoint ls`.")
]
To = Annotated[
    list[str],
    typer.Option(
        "--endpoint",
        help="Endpoint name, or `events` for the built-in endpoint that `hub monitor` reads; may be repeated.",
    ),
]
SourceOption = Annotated[
    str,
    typer.Option(
        help=(
            "Message source: DeviceMessages, TwinChangeEvents, DeviceLifecycleEvents or DeviceConnectionStateEvents."
        ),
    ),
]


def add_endpoint(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint.")],
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="URL that receives each message, signed.")] = None,
    folder: Annotated[
        str | None, typer.Option(help="Folder for files of JSON lines, below the server's buckets.")
    ] = None,
    file_name: Annotated[
        str | None,
        typer.Option(metavar="TEMPLATE", help="File name with {iothub} {partition} {YYYY} {MM} {DD} {HH} {mm}."),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Store the messages in a stream, for `endpoint read`.")
    ] = False,
    to_server: Annotated[
        str | None, typer.Option("--server", metavar="NAME", help="\\[servers.NAME] table of the configuration.")
    ] = None,
    topic: Annotated[
        str | None, typer.Option(help="Topic or subject at that server; may contain {iothub} and {device}.")
    ] = None,
    hub: HubOption = "birthmark",
) -> None:
    """Create a routing endpoint.

    A webhook, a folder, a stream or a server. A webhook's secret is shown only once.
    """
    only(folder is not None, "with --folder", file_name=file_name)
    only(to_server is not None, "with --server", topic=topic)
    body: dict[str, Any] = {"name": name, "url": webhook, "folder": folder, "stream": stream, "server": to_server}
    body |= {} if file_name is None else {"file_name": file_name}
    body |= {} if topic is None else {"topic": topic}
    server.do("hubs", hub, "endpoints", **body)


def endpoints(server: ListOptions, hub: HubOption = "birthmark") -> None:
    """List a hub's routing endpoints and their routes."""
    columns, nothing = ("name", "kind", "to", "routes"), "Messages leave nowhere; all are read by `hub monitor`."
    server.show("hubs", hub, "endpoints", columns=columns, nothing=nothing)


def remove_endpoint(server: RemoveOptions, name: EndpointName, hub: HubOption = "birthmark") -> None:
    """Delete a routing endpoint that no route uses.

    A stream is deleted with its messages; files stay.
    """
    server.remove("hubs", hub, "endpoints", name, subject=f"the endpoint {name}")


def read_endpoint(
    server: ServerOutputOptions,
    name: EndpointName,
    since: Annotated[str | None, typer.Option(help="Start time: 10m, 2026-11-21T10:00:00Z.")] = None,
    after: Annotated[str | None, typer.Option(help="Start position, as printed by an earlier run.")] = None,
    consumer_group: Annotated[str | None, typer.Option(help="Consumer group; the server stores its position.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Print new messages until Ctrl-C.")] = False,
    hub: HubOption = "birthmark",
) -> None:
    """Print the messages of a stream endpoint.

    Default start: the beginning of the stream.
    """
    only(after is None, "without --after", since=since, consumer_group=consumer_group)
    query = {"since": None if since is None else parse_since(since, SystemClock()).isoformat(), "after": after}
    place, client = "", server.client
    asked = {**query, "group": consumer_group, "follow": "true" if follow else None}
    with until_interrupted():
        pages = client.lines(at("hubs", hub, "endpoints", name, "stream"), **asked)
        for page in announce_first(pages) if follow else pages:
            if page["gap"]:
                typer.echo("Some messages are missing here: they were trimmed before they were read.", err=True)
            with uninterrupted(twice=True):  # items must not repeat after the printed position
                for row in page["items"]:
                    say(server.as_json, row, "  ".join((row["came"], row["device"], row["body"])))
                sys.stdout.flush()
                told_until, place = place, page["next"]
            if consumer_group is not None and told_until != place:
                client.put(at("hubs", hub, "endpoints", name, "groups", consumer_group), {"after": place})
    if consumer_group is None and place:
        typer.echo(f"To continue from here: --after {place}", err=True)


def add_route(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(metavar="ROUTE", help="Name of the route.")],
    to: To,
    condition: Annotated[
        str, typer.Option(help="Condition in IoT Hub's routing query language; `true` matches all messages.")
    ] = "true",
    source: SourceOption = "DeviceMessages",
    disabled: Annotated[bool, typer.Option("--disabled", help="Create the route disabled.")] = False,
    hub: HubOption = "birthmark",
) -> None:
    """Create a route for messages that match a condition.

    Messages received before the route exists are not routed.
    """
    body: dict[str, Any] = {"name": name, "endpoints": to, "source": source, "condition": condition}
    server.do("hubs", hub, "routes", **body, enabled=not disabled)


def routes(server: ListOptions, hub: HubOption = "birthmark") -> None:
    """List a hub's routes.

    $fallback is the destination of messages that match no route.
    """
    columns = ("name", "source", "condition", "endpoints", "enabled", "waiting", "put_aside")
    server.show("hubs", hub, "routes", columns=columns, nothing="No routes.")


def show_route(server: ServerOutputOptions, name: RouteName, hub: HubOption = "birthmark") -> None:
    """Show a route as JSON, with its queue and lag.

    Includes queued messages, dead letters with errors, and the lag in seconds.
    """
    shown = server.client.get(at("hubs", hub, "routes", name))
    typer.echo(json.dumps(shown, indent=None if server.as_json else 2))


def remove_route(server: RemoveOptions, name: RouteName, hub: HubOption = "birthmark") -> None:
    """Delete a route and its queue."""
    server.remove("hubs", hub, "routes", name, subject=f"the route {name} and its queued messages")


def enable_route(server: ServerOutputOptions, name: RouteName, hub: HubOption = "birthmark") -> None:
    """Enable a route."""
    emit(server.as_json, server.client.patch(at("hubs", hub, "routes", name), {"enabled": True}))


def disable_route(server: ServerOutputOptions, name: RouteName, hub: HubOption = "birthmark") -> None:
    """Disable a route.

    It receives no more messages; queued messages are still sent.
    """
    emit(server.as_json, server.client.patch(at("hubs", hub, "routes", name), {"enabled": False}))


def retry_route(server: ServerOutputOptions, name: RouteName, hub: HubOption = "birthmark") -> None:
    """Resend a route's dead letters."""
    server.client.post(at("hubs", hub, "routes", name, "retry"), {})
    say(server.as_json, {"retried": name}, f"Queued the dead letters of {name} again.")


def fallback(
    server: ServerOutputOptions,
    to: Annotated[
        list[str] | None, typer.Option("--endpoint", help="Endpoint name, or events; may be repeated.")
    ] = None,
    off: Annotated[
        bool, typer.Option("--off", help="Disable the fallback route; monitor still reads the messages.")
    ] = False,
    hub: HubOption = "birthmark",
) -> None:
    """Show or set the fallback route.

    It receives messages that match no other route. Set it with --endpoint or --off.
    """
    if not to and not off:
        emit(server.as_json, server.client.get(at("hubs", hub, "routes", "$fallback")))
        return
    body = {"endpoints": to or ["events"], "enabled": not off}
    emit(server.as_json, server.client.put(at("hubs", hub, "fallback"), body))


def try_route(
    server: ServerOutputOptions,
    condition: Annotated[str | None, typer.Option(help="Condition to test. Default: test the routes.")] = None,
    body: Annotated[str, typer.Option(help="Body of the message.")] = "{}",
    _text: Annotated[bool, typer.Option("--text", hidden=True, help="No effect: nothing is added.")] = False,
    properties: Annotated[
        list[str] | None, typer.Option("--property", help="Application property, NAME=VALUE.")
    ] = None,
    system: Annotated[list[str] | None, typer.Option("--system", help="System property, NAME=VALUE.")] = None,
    twin: Annotated[str | None, typer.Option(help="File with the device twin: JSON with tags and properties.")] = None,
    device: Annotated[str, typer.Option(help="Device ID of the sender.")] = "device",
    source: SourceOption = "DeviceMessages",
    hub: HubOption = "birthmark",
) -> None:
    """Test which routes, or a condition, match a message.

    Nothing is sent.

    The message only has the properties that you set. `$body` needs --system contentType=application/json and --system
    contentEncoding=utf-8, as a device's message does.
    """
    given = _pairs(system, "--system")
    asked = {
        "condition": condition,
        "source": source,
        "device": device,
        "body": body,
        "properties": _pairs(properties, "--property"),
        "system": given,
        "twin": object_of(twin, "--twin"),
    }
    answer = server.client.post(at("hubs", hub, "route-test"), asked)
    if body.lstrip()[:1] in {"{", "["} and body != "{}" and not {"contentType", "contentEncoding"} <= given.keys():
        typer.echo(_NO_BODY, err=True)
    if condition is not None:
        emit(server.as_json, answer)
        return
    for one in answer["routes"]:
        say(server.as_json, one, f"{one['route']} -> {', '.join(one['endpoints'])}")
    if not answer["routes"]:
        typer.echo("No route takes it.", err=True)


_NO_BODY = (
    "Note: conditions on $body see no JSON here. Add --system contentType=application/json --system "
    "contentEncoding=utf-8 if the device sends both."
)


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    pairs = [one.partition("=") for one in given or ()]
    if any(not equals for _, equals, _ in pairs):
        raise typer.BadParameter(f"{option} is NAME=VALUE")
    return {name: value for name, _, value in pairs}


def enrichments(server: ListOptions, hub: HubOption = "birthmark") -> None:
    """List a hub's message enrichments."""
    columns, nothing = ("key", "value", "endpoints"), "Nothing is added to messages."
    server.show("hubs", hub, "enrichments", columns=columns, nothing=nothing)


def add_enrichment(
    server: ServerOutputOptions,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Name of the property.")],
    value: Annotated[
        str,
        typer.Argument(metavar="VALUE", help="Text, $iothubname, or a path in the twin, such as $twin.tags.site."),
    ],
    to: To,
    hub: HubOption = "birthmark",
) -> None:
    """Add a property to messages sent to endpoints.

    An existing enrichment with this key is replaced.
    """
    path, body = at("hubs", hub, "enrichments", key), {"value": value, "endpoints": to}
    emit(server.as_json, server.client.put(path, body))


def remove_enrichment(
    server: RemoveOptions,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Name of the property.")],
    hub: HubOption = "birthmark",
) -> None:
    """Delete a message enrichment."""
    server.remove("hubs", hub, "enrichments", key, subject=f"the enrichment {key}")
