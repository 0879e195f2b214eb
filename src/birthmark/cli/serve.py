"""`birthmark serve`: run the server."""

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from birthmark.cli.output.command_output import without
from birthmark.untrusted_json_and_text import printable

if TYPE_CHECKING:
    from birthmark.server.settings import Settings

NOT_IN_CERTIFICATE = (
    "clients use the host {host}, which the server's certificate does not contain: they will reject the "
    'connection. Start the server with `--host {host}`, or with `names = ["{host}"]` in its configuration.'
)
NAME_STAYS = (
    "devices use the host {told}, not {host}: it was the server's name when the first device was enrolled. They "
    "can connect only if that name resolves to this server. To use a separate data directory for a trial: "
    "`birthmark serve --data tried`"
)


def serve(
    data: Annotated[
        Path | None,
        typer.Option(readable=False, help="Directory for keys, CA, database and credentials (BIRTHMARK_DATA)."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration file (TOML), see docs/reference/server-config.md.")
    ] = None,
    listen: Annotated[
        list[str] | None, typer.Option(help="Address to listen on; may be repeated (BIRTHMARK_LISTEN).")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Host name for clients (BIRTHMARK_HOST).")] = None,
    health_listen: Annotated[
        list[str] | None, typer.Option(help="Address of the health port; may be repeated.")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="SERVICES", help="Services to run, separated by commas: est, dps, iothub, aws."),
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="Database: sqlite:///PATH or postgresql://… (BIRTHMARK_DATABASE).")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Number of worker processes; more than one needs PostgreSQL.")
    ] = None,
    bus: Annotated[
        str | None,
        typer.Option(help="NATS server for the workers, nats://HOST:4222. Default: started automatically."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the endpoints as one JSON object when ready.")] = False,
) -> None:
    """Run the server.

    The first start creates everything that it needs in the data directory.

    BIRTHMARK_LOG=INFO logs events to stderr, one JSON object per line.
    """
    import gc
    import json

    gc.disable()  # imported objects stay: scanning them took a fifth of the start; `collect_seldom` rescans
    from birthmark.bus import BusAwayError
    from birthmark.net.listener import PortTakenError
    from birthmark.server.connection_descriptor_budget import check_descriptors
    from birthmark.server.database_installation_facts import DatabaseMovedError
    from birthmark.server.server_process import begin_log
    from birthmark.server.settings import read_settings
    from birthmark.systemd_notify import notifier

    begin_log()
    check_descriptors()

    def ready(endpoints: dict[str, Any], elsewhere: Sequence[str]) -> None:
        for name in elsewhere:
            typer.echo(f"Warning: {NOT_IN_CERTIFICATE.format(host=printable(name))}", err=True)
        for name in sorted(list_advertised_hosts(endpoints) - {settings.host_name, *settings.names, *elsewhere}):
            facts = {"told": printable(name), "host": printable(settings.host_name)}
            typer.echo(f"Warning: {NAME_STAYS.format(**facts)}", err=True)
        if as_json:
            typer.echo(json.dumps(endpoints))
        else:
            for line in format_service_addresses(endpoints, settings.bound.mqtt, settings.bound.amqps):
                typer.echo(line)
            typer.echo("Ready. Print the client settings: `birthmark env`.")
        typer.get_text_stream("stdout").flush()
        notifier().tell(ready="1")

    read = partial(
        read_settings,
        config,
        os.environ,
        data=None if data is None else str(data),
        listen=tuple(listen) if listen else None,
        host=host,
        only=tuple(name.strip() for name in only.split(",")) if only is not None else None,
        database=database,
        health_listen=tuple(health_listen) if health_listen else None,
        workers=workers,
        bus=bus,
    )
    settings = read()
    if bus and urlsplit(bus).username:
        typer.echo(
            "Warning: other users can see the token of --bus in the process list; set BIRTHMARK_BUS instead.",
            err=True,
        )
    for warning in find_password_exposures(database, config, settings.database):
        typer.echo(f"Warning: {warning}", err=True)
    try:
        _runner(settings, read)(settings, ready, config)
    except PortTakenError as error:
        error.add_facts(without=without("--listen", takes_value=True))
        raise
    except (BusAwayError, DatabaseMovedError) as error:
        is_bus = isinstance(error, BusAwayError)
        less = without("--bus" if is_bus else "--database", takes_value=True)
        error.add_facts(command=f"{less} --bus ''" if is_bus else less)
        raise


def _runner(settings: "Settings", read: Callable[[], "Settings"]) -> Callable[..., None]:
    if settings.is_shared:
        from birthmark.server.workers.parent import run_workers

        return partial(run_workers, read=read)
    from birthmark.server.server_process import run

    return run


_AMQPS_NOT_BOUND = (
    "port {port} is in use or not permitted, so AMQP is possible only over WebSocket, on the HTTPS ports. "
    "Find the program that uses the port: `ss -ltnp 'sport = :{port}'`"
)


def list_advertised_hosts(endpoints: Mapping[str, Any]) -> set[str]:
    """Return the host names that devices received from the first start."""
    return {part["host"] for part in (endpoints["dps"], endpoints["iothub"]) if part is not None}


def format_service_addresses(endpoints: Mapping[str, Any], mqtt_port: int, amqps_port: int = 0) -> list[str]:
    """Return one line per service with its address; `amqps_port` is the configured port of AMQP."""

    def at(host: str, part: Mapping[str, Any]) -> str:
        return f"{host}:{mqtt_port}" if mqtt_port else f"https://{host}:{part['https_port']}"

    lines = []
    if (dps := endpoints["dps"]) is not None:
        lines.append(f"DPS      {at(dps['host'], dps)}  ID scope {dps['id_scope']}")
    if (hub := endpoints["iothub"]) is not None:
        lines.append(f"IoT Hub  {at(hub['host'], hub)}")
    if (azure := hub or dps) is not None:
        if azure.get("amqps_port"):
            lines.append(f"AMQP     {azure['host']}:{azure['amqps_port']}")
        elif amqps_port:
            lines.append(f"Warning: {_AMQPS_NOT_BOUND.format(port=amqps_port)}")
    if (aws := endpoints["aws"]) is not None:
        data = f"  data {aws['data_endpoint']}:{mqtt_port}" if mqtt_port else ""
        lines.append(f"AWS IoT  {aws['endpoint_url']}{data}")
    if (est := endpoints["est"]) is not None:
        lines.append(f"EST      {est['url']}")
    return [*lines, f"Health   {endpoints['health_url']}"]


def find_password_exposures(option: str | None, config: Path | None, database: str | None) -> list[str]:
    """Return warnings about exposures of the database password, each with its fix."""
    found = []
    if option and urlsplit(option).password:
        found.append(
            "other users can see the password of --database in the process list; set BIRTHMARK_DATABASE instead."
        )
    elif config and database and urlsplit(database).password and config.stat().st_mode & 0o077:
        found.append(f"others may read the database's password in {config}: `chmod 600 {shlex.quote(str(config))}`.")
    return found
