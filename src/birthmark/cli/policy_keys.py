"""Policy keys of a service: shown as connection strings, and rotated."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from birthmark.auth.connection_strings import ConnectionString, render_event_hubs
from birthmark.cli.options.server import ListOptions, ServerOptions, ServerOutputOptions, at
from birthmark.cli.output.command_output import emit
from birthmark.operator_api.client.saved_login import signed_in
from birthmark.operator_api.client.server_discovery_and_api_client import endpoints_for, string_of

_STANDARD = 443
_SERVICE = {"iothubowner", "service"}
"""Policies of a hub that may read its telemetry."""
_OWNERS = {"iothubowner", "provisioningserviceowner"}
"""Policies whose connection strings `birthmark env` prints."""


class PolicyKeySlot(StrEnum):
    """One of the two keys of a policy."""

    PRIMARY = "primary"
    SECONDARY = "secondary"


PolicyOption = Annotated[str | None, typer.Option("--policy", help="Shared access policy. Default: the owner's.")]
PolicyArgument = Annotated[str, typer.Argument(metavar="POLICY", help="Policy, as listed by `policy ls`.")]
WhichArgument = Annotated[PolicyKeySlot, typer.Argument(metavar="KEY", help="Key to replace: primary or secondary.")]
RotateOption = Annotated[
    PolicyKeySlot | None,
    typer.Option("--rotate", help="Replace this key first; signatures of the old key are rejected."),
]


def show_keys(
    server: ServerOutputOptions, kind: str, name: str, policy: str | None, rotate: PolicyKeySlot | None
) -> None:
    """Show the connection strings of a policy; with `rotate`, replace that key first."""
    asked = {"policy": policy, "rotate": None if rotate is None else rotate.value}
    told = server.client.post(at(kind, name, "keys"), asked)
    if rotate is PolicyKeySlot.PRIMARY and name == "birthmark" and told["policy"] in _OWNERS:
        typer.echo(
            "`birthmark env` prints the new key shortly; with several workers, after a server restart.",
            err=True,
        )
    strings = _strings(told)
    if kind == "hubs" and told["policy"] in _SERVICE:
        strings |= {
            f"{which}_event_hubs_connection_string": render_event_hubs(
                told["host"], told["policy"], told[f"{which}_key"], told["name"]
            )
            for which in PolicyKeySlot
        }
    del told["https_port"]  # in the strings
    emit(server.as_json, told | strings)


def show_policies(server: ListOptions, kind: str, name: str) -> None:
    """List the policies of a service with their permissions, without keys."""
    server.show(kind, name, "policies", columns=("policy", "rights"), nothing="No policies.")


def show_identity(server: ServerOutputOptions, hub: str, name: str) -> None:
    """Show the connection strings of a device, or of a module by its name."""
    told = server.client.post(at("hubs", hub, "identity-keys", name))
    who = f"HostName={told['host']};DeviceId={told['device']}"
    who += f";ModuleId={told['module']}" if "module" in told else ""
    strings = {f"{which}_connection_string": f"{who};SharedAccessKey={told[f'{which}_key']}" for which in PolicyKeySlot}
    emit(server.as_json, told | strings)


def owner_string(server: ServerOptions, kind: str, name: str) -> str:
    """Return the owner's connection string of a service, or the signed-in user's for a remote server.

    Raise the server's error for an unknown name.
    """
    if server.is_elsewhere and (login := signed_in()) is not None:
        found = endpoints_for(server.data)["dps" if kind == "dps" else "iothub"]
        hosts = {row["name"]: str(row["host"]) for row in server.client.rows(at(kind))}
        return string_of(login, name, hosts.get(name, name), found["https_port"])
    told = server.client.post(at(kind, name, "keys"), {"policy": None, "rotate": None})
    return _strings(told)[f"{PolicyKeySlot.PRIMARY}_connection_string"]


def _strings(values: Mapping[str, Any]) -> dict[str, str]:
    port = values["https_port"]
    host = values["host"] if port == _STANDARD else f"{values['host']}:{port}"
    return {
        f"{which}_connection_string": ConnectionString.of_text(host, values["policy"], values[f"{which}_key"]).render()
        for which in PolicyKeySlot
    }
