"""`birthmark hub`: hubs, their devices and the telemetry they took."""

from pathlib import Path
from typing import Annotated, Any

import typer

from birthmark.cli.asking import agree
from birthmark.cli.common import emit, read_certificate
from birthmark.cli.operator import ServerOptions, ServerOutputOptions, at, show
from birthmark.cli.options import command, commands
from birthmark.cli.serve import NOT_IN_CERTIFICATE
from birthmark.text import printable

app = commands("Hubs: create, devices, messages.", "birthmark hub devices")
device = commands("One device of a hub.", "birthmark hub device create pump-7")
app.add_typer(device, name="device")
HubOption = Annotated[str, typer.Option("--hub", help="Which hub.")]
HubName = Annotated[str, typer.Argument(help="Its name on this server.")]


@command(app, "birthmark hub show", "show")
def show_all(server: ServerOutputOptions) -> None:
    """List the hubs."""
    server.show("hubs", columns=("name", "host"), nothing="There is no hub.")


@command(app, "birthmark hub create hub-2 --host hub2.example")
def create(
    server: ServerOutputOptions,
    name: HubName,
    host: Annotated[str, typer.Option(help="Host name devices use; it must be in the server's certificate.")],
) -> None:
    """Make another hub. Link it with `birthmark dps link NAME`."""
    made = server.client.post("/hubs", {"name": name, "host": host})
    emit(server.as_json, {key: value for key, value in made.items() if key != "in_certificate"})
    if not made["in_certificate"]:
        typer.echo(f"Warning: {NOT_IN_CERTIFICATE.format(host=printable(host))}", err=True)


@command(app, "birthmark hub delete hub-2")
def delete(
    server: ServerOptions, name: HubName, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Delete a hub with its devices and messages."""
    agree(f"Delete hub {printable(name)} with all its devices and messages?", yes=yes)
    server.delete("hubs", name, said=f"Deleted {name}.")


@command(device, "birthmark hub device create pump-7 --cert pump-7.pem", "create")
def create_device(
    server: ServerOutputOptions,
    name: Annotated[str, typer.Argument(help="The device id; letter case counts.")],
    cert: Annotated[Path | None, typer.Option(help="Its certificate, PEM or DER; without one, keys are made.")] = None,
    hub: HubOption = "birthmark",
) -> None:
    """Make a device in a hub, without a provisioning service. A key is shown this once."""
    thumbprint = None if cert is None else read_certificate(cert).thumbprint.hex()
    server.do("hubs", hub, "devices", device_id=name, thumbprint=thumbprint)


@command(app, "birthmark hub devices --edge")
def devices(
    server: ServerOutputOptions,
    edge: Annotated[bool, typer.Option("--edge", help="Only IoT Edge devices.")] = False,
    hub: HubOption = "birthmark",
) -> None:
    """List a hub's devices."""
    rows = map(_row, server.client.rows(at("hubs", hub, "devices")))
    columns = ("device", "state", "status", "edge", "thumbprint")
    found = [row for row in rows if row["edge"] or not edge]
    show(found, columns, as_json=server.as_json, nothing="The hub has no such device.")


@command(device, "birthmark hub device delete edge-0001", "delete")
def delete_device(
    server: ServerOptions,
    name: Annotated[str, typer.Argument(metavar="DEVICE", help="Its device id; letter case counts.")],
    hub: HubOption = "birthmark",
) -> None:
    """Remove a device from a hub's registry; its connection ends. It comes back if it is enrolled and registers."""
    server.delete("hubs", hub, "devices", name, said=f"Deleted {name}.")


@command(app, "birthmark hub messages se050-0001")
def messages(
    server: ServerOutputOptions,
    device: Annotated[str | None, typer.Argument(help="Only this device's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, the latest.")] = 100,
    hub: HubOption = "birthmark",
) -> None:
    """Show the latest telemetry, oldest first."""
    columns, nothing = ("enqueued", "device", "body"), "No message came."
    server.show("hubs", hub, "messages", columns=columns, nothing=nothing, device=device, limit=limit)


def _row(device: dict[str, Any]) -> dict[str, Any]:
    return {
        "device": device["deviceId"],
        "state": device["connectionState"].lower(),
        "status": device["status"],
        "edge": device["capabilities"]["iotEdge"],
        "auth": device["authentication"]["type"],
        "thumbprint": (device["authentication"]["x509Thumbprint"]["primaryThumbprint"] or "").lower() or None,
    }
