"""`birthmark hub`: hubs, their devices and the telemetry they took."""

from pathlib import Path
from typing import Annotated, Any

import typer

from birthmark.cli.asking import agree
from birthmark.cli.common import emit, read_certificate, telling_refusals
from birthmark.cli.operator import DEFAULT_DATA, DataOption, JsonOption, at, operator, show
from birthmark.cli.serve import NOT_IN_CERTIFICATE
from birthmark.text import printable

app = typer.Typer(
    help="Hubs: create, devices, messages.", epilog="Example: birthmark hub devices", no_args_is_help=True
)
device = typer.Typer(
    help="One device of a hub.", epilog="Example: birthmark hub device create pump-7", no_args_is_help=True
)
app.add_typer(device, name="device")
HubOption = Annotated[str, typer.Option("--hub", help="Which hub.")]


@app.command("show")
def show_all(data: DataOption = Path(DEFAULT_DATA), as_json: JsonOption = False) -> None:
    """List the hubs.

    Example: birthmark hub show
    """
    with telling_refusals(as_json=as_json):
        show(operator(data).rows("/hubs"), ("name", "host"), as_json=as_json, nothing="There is no hub.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Its name on this server.")],
    host: Annotated[str, typer.Option(help="Host name devices use; it must be in the server's certificate.")],
    data: DataOption = Path(DEFAULT_DATA),
    as_json: JsonOption = False,
) -> None:
    """Make another hub. Link it with `birthmark dps link NAME`.

    Example: birthmark hub create hub-2 --host hub2.example
    """
    with telling_refusals(as_json=as_json):
        made = operator(data).post("/hubs", {"name": name, "host": host})
        emit(as_json, {key: value for key, value in made.items() if key != "in_certificate"})
        if not made["in_certificate"]:
            typer.echo(f"Warning: {NOT_IN_CERTIFICATE.format(host=printable(host))}", err=True)


@app.command()
def delete(
    name: Annotated[str, typer.Argument(help="Its name on this server.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data: DataOption = Path(DEFAULT_DATA),
) -> None:
    """Delete a hub with its devices and messages.

    Example: birthmark hub delete hub-2
    """
    with telling_refusals():
        agree(f"Delete hub {printable(name)} with all its devices and messages?", yes=yes)
        operator(data).delete(at("hubs", name))
        typer.echo(f"Deleted {name}.", err=True)


@device.command("create")
def create_device(
    name: Annotated[str, typer.Argument(help="The device id; letter case counts.")],
    cert: Annotated[Path | None, typer.Option(help="Its certificate, PEM or DER; without one, keys are made.")] = None,
    hub: HubOption = "birthmark",
    data: DataOption = Path(DEFAULT_DATA),
    as_json: JsonOption = False,
) -> None:
    """Make a device in a hub, without a provisioning service. A key is shown this once.

    Example: birthmark hub device create pump-7 --cert pump-7.pem
    """
    with telling_refusals(as_json=as_json):
        thumbprint = None if cert is None else read_certificate(cert).thumbprint.hex()
        body = {"device_id": name, "thumbprint": thumbprint}
        emit(as_json, operator(data).post(at("hubs", hub, "devices"), body))


@app.command()
def devices(
    edge: Annotated[bool, typer.Option("--edge", help="Only IoT Edge devices.")] = False,
    hub: HubOption = "birthmark",
    data: DataOption = Path(DEFAULT_DATA),
    as_json: JsonOption = False,
) -> None:
    """List a hub's devices.

    Example: birthmark hub devices --edge
    """
    with telling_refusals(as_json=as_json):
        found = [_row(device) for device in _devices(data, hub) if device["capabilities"]["iotEdge"] or not edge]
        columns = ("device", "state", "status", "edge", "thumbprint")
        show(found, columns, as_json=as_json, nothing="The hub has no such device.")


@device.command("delete")
def delete_device(
    name: Annotated[str, typer.Argument(metavar="DEVICE", help="Its device id; letter case counts.")],
    hub: HubOption = "birthmark",
    data: DataOption = Path(DEFAULT_DATA),
) -> None:
    """Remove a device from a hub's registry; its connection ends. It comes back if it is enrolled and registers.

    Example: birthmark hub device delete edge-0001
    """
    with telling_refusals():
        operator(data).delete(at("hubs", hub, "devices", name))
        typer.echo(f"Deleted {name}.", err=True)


@app.command()
def messages(
    device: Annotated[str | None, typer.Argument(help="Only this device's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, the latest.")] = 100,
    hub: HubOption = "birthmark",
    data: DataOption = Path(DEFAULT_DATA),
    as_json: JsonOption = False,
) -> None:
    """Show the latest telemetry, oldest first.

    Example: birthmark hub messages se050-0001
    """
    with telling_refusals(as_json=as_json):
        found = operator(data).rows(at("hubs", hub, "messages"), device=device, limit=limit)
        show(found, ("enqueued", "device", "body"), as_json=as_json, nothing="No message came.")


def _devices(data: Path, hub: str) -> list[dict[str, Any]]:
    return list(operator(data).rows(at("hubs", hub, "devices")))


def _row(device: dict[str, Any]) -> dict[str, Any]:
    return {
        "device": device["deviceId"],
        "state": device["connectionState"].lower(),
        "status": device["status"],
        "edge": device["capabilities"]["iotEdge"],
        "auth": device["authentication"]["type"],
        "thumbprint": (device["authentication"]["x509Thumbprint"]["primaryThumbprint"] or "").lower() or None,
    }
