"""`birthmark aws thing|certificate|group|policy show`, `group ls`, `policy ls` and `search`: the registry, read."""

import json
from typing import Annotated

import typer

from birthmark.cli.server_client import ListOptions, ServerOutputOptions, at

_GROUP_COLUMNS = ("group", "parent", "query", "description")
_POLICY_COLUMNS = ("policy", "version", "changed")
_FOUND_COLUMNS = ("thing", "type", "groups", "connected")


def _whole(server: ServerOutputOptions, *parts: str) -> None:
    typer.echo(json.dumps(server.client.get(at("aws", *parts)), indent=None if server.as_json else 2))


def show_thing(
    server: ServerOutputOptions, name: Annotated[str, typer.Argument(help="The thing's name; letter case counts.")]
) -> None:
    """Show a thing whole, as JSON: attributes, groups, certificates with their policies, and whether it is connected.

    Connected is the client whose id is the thing's name.
    """
    _whole(server, "things", name)


def show_certificate(
    server: ServerOutputOptions,
    certificate_id: Annotated[str, typer.Argument(help="As `birthmark aws certificate ls` shows it.")],
) -> None:
    """Show a certificate whole, as JSON: status, CA, dates, things, policies, and the certificate itself."""
    _whole(server, "certificates", certificate_id)


def list_groups(server: ListOptions) -> None:
    """List the thing groups; one with a query is dynamic."""
    server.show("aws", "groups", columns=_GROUP_COLUMNS, nothing="There is no thing group.")


def show_group(
    server: ServerOutputOptions, name: Annotated[str, typer.Argument(help="As `birthmark aws group ls` shows it.")]
) -> None:
    """Show a thing group whole, as JSON: the groups below it, its things and policies; of a dynamic one, its query."""
    _whole(server, "groups", name)


def list_policies(server: ListOptions) -> None:
    """List the policies."""
    server.show("aws", "policies", columns=_POLICY_COLUMNS, nothing="There is no policy.")


def show_policy(
    server: ServerOutputOptions, name: Annotated[str, typer.Argument(help="As `birthmark aws policy ls` shows it.")]
) -> None:
    """Show a policy whole, as JSON: its default document, and the certificates and groups that it hangs on."""
    _whole(server, "policies", name)


def search(
    server: ListOptions,
    query: Annotated[
        str,
        typer.Argument(help="In AWS's query language: 'attributes.site:7 AND connectivity.connected:true'."),
    ],
    groups: Annotated[bool, typer.Option("--groups", help="Search thing groups, and not things.")] = False,
) -> None:
    """List the things that a query finds; the index has to be switched on, and what is refused says how."""
    columns = _GROUP_COLUMNS if groups else _FOUND_COLUMNS
    server.show("aws", "search", columns=columns, nothing="Nothing is found.", query=query, groups=groups or None)
