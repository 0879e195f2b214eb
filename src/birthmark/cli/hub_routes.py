"""`birthmark hub route`, `hub endpoint`, `hub enrichment`: which messages of a hub leave, and where to."""

import json
import sys
from typing import Annotated, Any

import typer

from birthmark.cli.common import emit, say
from birthmark.cli.confirmation import only
from birthmark.cli.hub import HubOption
from birthmark.cli.json_input import object_of
from birthmark.cli.server_client import ListOptions, RemoveOptions, ServerOutputOptions, at
from birthmark.cli.tail import parse_since, told, until_interrupted
from birthmark.clock import SystemClock
from birthmark.interrupts import uninterrupted

RouteName = Annotated[str, typer.Argument(metavar="ROUTE", help="As `birthmark hub route ls` shows it.")]
EndpointName = Annotated[str, typer.Argument(metavar="ENDPOINT", help="As `birthmark hub endpoint ls` shows it.")]
To = Annotated[
    list[str],
    typer.Option("--endpoint", help="An endpoint, or events, which is what monitor reads; may be given again."),
]
SourceOption = Annotated[
    str,
    typer.Option(
        help="DeviceMessages, TwinChangeEvents, DeviceLifecycleEvents or DeviceConnectionStateEvents.",
    ),
]


def add_endpoint(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(metavar="ENDPOINT", help="How it will be called.")],
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="Send each message there, signed.")] = None,
    folder: Annotated[
        str | None, typer.Option(help="Write lines of JSON to files of this folder, below the server's buckets.")
    ] = None,
    file_name: Annotated[
        str | None, typer.Option(metavar="TEMPLATE", help="Of {iothub} {partition} {YYYY} {MM} {DD} {HH} {mm}.")
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Keep them in a stream, for `endpoint read`.")] = False,
    to_server: Annotated[
        str | None, typer.Option("--server", metavar="NAME", help=r"A \[servers.NAME] of the configuration.")
    ] = None,
    topic: Annotated[
        str | None, typer.Option(help="Topic, or subject, at that server; {iothub} and {device} may stand in it.")
    ] = None,
    hub: HubOption = "birthmark",
) -> None:
    """Let messages leave to a webhook, whose secret is shown this once, a folder, a stream or a server."""
    only(folder is not None, "with --folder", file_name=file_name)
    only(to_server is not None, "with --server", topic=topic)
    body: dict[str, Any] = {"name": name, "url": webhook, "folder": folder, "stream": stream, "server": to_server}
    body |= {} if file_name is None else {"file_name": file_name}
    body |= {} if topic is None else {"topic": topic}
    server.do("hubs", hub, "endpoints", **body)


def endpoints(server: ListOptions, hub: HubOption = "birthmark") -> None:
    """List where messages of a hub may leave to, and which routes lead there."""
    columns, nothing = ("name", "kind", "to", "routes"), "Messages leave nowhere; all are read by `hub monitor`."
    server.show("hubs", hub, "endpoints", columns=columns, nothing=nothing)


def remove_endpoint(server: RemoveOptions, name: EndpointName, hub: HubOption = "birthmark") -> None:
    """Let messages leave there no more; a stream goes with what it holds, files stay. No route may lead there."""
    server.remove("hubs", hub, "endpoints", name, what=f"the endpoint {name}")


def read_endpoint(
    server: ServerOutputOptions,
    name: EndpointName,
    since: Annotated[str | None, typer.Option(help="From when: 10m, 2026-11-21T10:00:00Z.")] = None,
    after: Annotated[str | None, typer.Option(help="From a position, as an earlier run said it.")] = None,
    consumer_group: Annotated[
        str | None, typer.Option(help="From where this group is; the server notes how far it came.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what comes, until Ctrl-C.")] = False,
    hub: HubOption = "birthmark",
) -> None:
    """Show what came to a stream, from its beginning unless said otherwise."""
    only(after is None, "without --after", since=since, consumer_group=consumer_group)
    query = {"since": None if since is None else parse_since(since, SystemClock()).isoformat(), "after": after}
    place, client = "", server.client
    asked = {**query, "group": consumer_group, "follow": "true" if follow else None}
    with until_interrupted():
        pages = client.lines(at("hubs", hub, "endpoints", name, "stream"), **asked)
        for page in told(pages) if follow else pages:
            if page["gap"]:
                typer.echo("Some messages are missing here: they were trimmed before they were read.", err=True)
            with uninterrupted(twice=True):  # what was shown is not shown again by the place that is said
                for row in page["items"]:
                    say(server.as_json, row, "  ".join((row["came"], row["device"], row["body"])))
                sys.stdout.flush()
                told_until, place = place, page["next"]
            if consumer_group is not None and told_until != place:
                client.put(at("hubs", hub, "endpoints", name, "groups", consumer_group), {"after": place})
    if consumer_group is None and place:
        typer.echo(f"To go on from here: --after {place}", err=True)


def add_route(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(metavar="ROUTE", help="How it will be called.")],
    to: To,
    condition: Annotated[
        str, typer.Option(help="Which messages, in IoT Hub's query language of routes; all where it says nothing.")
    ] = "true",
    source: SourceOption = "DeviceMessages",
    disabled: Annotated[bool, typer.Option("--disabled", help="Take nothing yet.")] = False,
    hub: HubOption = "birthmark",
) -> None:
    """Let messages leave for which a condition holds. What came before is not sent."""
    body: dict[str, Any] = {"name": name, "endpoints": to, "source": source, "condition": condition}
    server.do("hubs", hub, "routes", **body, enabled=not disabled)


def routes(server: ListOptions, hub: HubOption = "birthmark") -> None:
    """List the routes of a hub; $fallback says where those messages go that no route takes."""
    columns = ("name", "source", "condition", "endpoints", "enabled", "waiting", "put_aside")
    server.show("hubs", hub, "routes", columns=columns, nothing="There is no route.")


def show_route(server: ServerOutputOptions, name: RouteName, hub: HubOption = "birthmark") -> None:
    """Show a route, as JSON: what waits, what was put aside and why, and how many seconds it is behind."""
    shown = server.client.get(at("hubs", hub, "routes", name))
    typer.echo(json.dumps(shown, indent=None if server.as_json else 2))


def remove_route(server: RemoveOptions, name: RouteName, hub: HubOption = "birthmark") -> None:
    """Remove a route, with what waits of it."""
    server.remove("hubs", hub, "routes", name, what=f"the route {name}, and what waits of it")


def enable_route(server: ServerOutputOptions, name: RouteName, hub: HubOption = "birthmark") -> None:
    """Let a route take messages again."""
    emit(server.as_json, server.client.patch(at("hubs", hub, "routes", name), {"enabled": True}))


def disable_route(server: ServerOutputOptions, name: RouteName, hub: HubOption = "birthmark") -> None:
    """Let a route take no more messages; what waits of it still leaves."""
    emit(server.as_json, server.client.patch(at("hubs", hub, "routes", name), {"enabled": False}))


def retry_route(server: ServerOutputOptions, name: RouteName, hub: HubOption = "birthmark") -> None:
    """Try again what of a route was put aside."""
    server.client.post(at("hubs", hub, "routes", name, "retry"), {})
    say(server.as_json, {"retried": name}, f"What was put aside of {name} is tried again.")


def fallback(
    server: ServerOutputOptions,
    to: Annotated[
        list[str] | None, typer.Option("--endpoint", help="An endpoint, or events; may be given again.")
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Send them nowhere; monitor reads them in any case.")] = False,
    hub: HubOption = "birthmark",
) -> None:
    """Show where messages go that no route takes; with --endpoint, or --off, say where they go from now on."""
    if not to and not off:
        emit(server.as_json, server.client.get(at("hubs", hub, "routes", "$fallback")))
        return
    body = {"endpoints": to or ["events"], "enabled": not off}
    emit(server.as_json, server.client.put(at("hubs", hub, "fallback"), body))


def try_route(
    server: ServerOutputOptions,
    condition: Annotated[str | None, typer.Option(help="Whether this holds; else, which routes take it.")] = None,
    body: Annotated[str, typer.Option(help="The message's body.")] = "{}",
    _text: Annotated[bool, typer.Option("--text", hidden=True, help="No effect: nothing is added.")] = False,
    properties: Annotated[
        list[str] | None, typer.Option("--property", help="A property of the application, NAME=VALUE.")
    ] = None,
    system: Annotated[list[str] | None, typer.Option("--system", help="A property of the system, NAME=VALUE.")] = None,
    twin: Annotated[str | None, typer.Option(help="The device's twin: JSON with tags and properties.")] = None,
    device: Annotated[str, typer.Option(help="Whose message it is.")] = "device",
    source: SourceOption = "DeviceMessages",
    hub: HubOption = "birthmark",
) -> None:
    """Show which routes would take a message, or whether a condition holds for it; nothing is sent.

    The message has the properties that you give and no others. `$body` needs --system contentType=application/json and
    --system contentEncoding=utf-8, as a message of a device does.
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
    """List what is added to messages that leave."""
    columns, nothing = ("key", "value", "endpoints"), "Nothing is added to messages."
    server.show("hubs", hub, "enrichments", columns=columns, nothing=nothing)


def add_enrichment(
    server: ServerOutputOptions,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The property's name.")],
    value: Annotated[
        str, typer.Argument(metavar="VALUE", help="A text, $iothubname, or a path in the twin, as $twin.tags.site.")
    ],
    to: To,
    hub: HubOption = "birthmark",
) -> None:
    """Add a property to what goes to endpoints; one of the same key is replaced."""
    path, body = at("hubs", hub, "enrichments", key), {"value": value, "endpoints": to}
    emit(server.as_json, server.client.put(path, body))


def remove_enrichment(
    server: RemoveOptions,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The property's name.")],
    hub: HubOption = "birthmark",
) -> None:
    """Add a property to messages no more."""
    server.remove("hubs", hub, "enrichments", key, what=f"the enrichment {key}")
