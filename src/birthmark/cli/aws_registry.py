"""`birthmark aws thing|certificate|group|policy show`, `group ls`, `policy ls`, `search`: read the registry."""

import json
from typing import Annotated

import typer

from birthmark.cli.options.server import ListOptions, ServerOutputOptions, at

_GROUP_COLUMNS = ("group", "parent", "query", "description")
_POLICY_COLUMNS = ("policy", "version", "changed")
_FOUND_COLUMNS = ("thing", "type", "groups", "connected")


def _whole(server: ServerOutputOptions, *parts: str) -> None:
    typer.echo(json.dumps(server.client.get(at("aws", *parts)), indent=None if server.as_json else 2))


def show_thing(
    server: ServerOutputOptions, name: Annotated[str, typer.Argument(help="Thing name; case-sensitive.")]
) -> None:
    """Show a thing as JSON, with its connection state.

    Includes attributes, groups, certificates and their policies.

    The thing is connected if the client whose ID is the thing's name is connected.
    """
    _whole(server, "things", name)


def show_certificate(
    server: ServerOutputOptions,
    certificate_id: Annotated[str, typer.Argument(help="Certificate ID, as listed by `birthmark aws certificate ls`.")],
) -> None:
    """Show a certificate as JSON.

    Includes status, CA, dates, things, policies and the PEM certificate.
    """
    _whole(server, "certificates", certificate_id)


def list_groups(server: ListOptions) -> None:
    """List the thing groups.

    A group with a query is dynamic.
    """
    server.show("aws", "groups", columns=_GROUP_COLUMNS, nothing="No thing groups.")


def show_group(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="Thing group, as listed by `birthmark aws group ls`.")],
) -> None:
    """Show a thing group as JSON.

    Includes its subgroups, things and policies, and a dynamic group's query.
    """
    _whole(server, "groups", name)


def list_policies(server: ListOptions) -> None:
    """List the AWS IoT policies."""
    server.show("aws", "policies", columns=_POLICY_COLUMNS, nothing="No policies.")


def show_policy(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="Policy, as listed by `birthmark aws policy ls`.")],
) -> None:
    """Show an AWS IoT policy as JSON.

    Includes its default document and the certificates and groups it is attached to.
    """
    _whole(server, "policies", name)


def search(
    server: ListOptions,
    query: Annotated[
        str,
        typer.Argument(help="Query in AWS's query language: 'attributes.site:7 AND connectivity.connected:true'."),
    ],
    groups: Annotated[bool, typer.Option("--groups", help="Search thing groups instead of things.")] = False,
) -> None:
    """Search the fleet index for things.

    Indexing must be enabled; otherwise, the error message shows how.
    """
    columns = _GROUP_COLUMNS if groups else _FOUND_COLUMNS
    server.show("aws", "search", columns=columns, nothing="Nothing is found.", query=query, groups=groups or None)
