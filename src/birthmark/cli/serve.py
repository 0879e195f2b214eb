"""`birthmark serve`: run the server."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from birthmark.cli.common import WRONG_USAGE, refusals_shown

app = typer.Typer()


@app.command()
def serve(
    data: Annotated[
        Path | None,
        typer.Option(readable=False, help="Directory for keys, CA, database and credentials (BIRTHMARK_DATA)."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file; see docs/reference/server-config.md.")] = None,
    listen: Annotated[
        list[str] | None, typer.Option(help="Address to listen on; may be given again (BIRTHMARK_LISTEN).")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Name under which clients reach the server (BIRTHMARK_HOST).")
    ] = None,
    health_listen: Annotated[
        list[str] | None, typer.Option(help="Address where probes reach the health port; may be given again.")
    ] = None,
    database: Annotated[str | None, typer.Option(help="sqlite:///PATH or postgresql://… (BIRTHMARK_DATABASE).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the endpoints as one JSON object when ready.")] = False,
) -> None:
    """Run the server; the first start creates everything it needs in the data directory.

    BIRTHMARK_LOG=INFO logs events to stderr, one JSON object a line.

    Example: birthmark serve --data ./birthmark-data
    """
    import json
    import logging

    from birthmark.clock import SystemClock
    from birthmark.server.quiet import BoundedLog
    from birthmark.server.run import JsonLines, run
    from birthmark.server.settings import ConfigInvalidError, read_settings

    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    handler.addFilter(BoundedLog(SystemClock().monotonic))
    logging.basicConfig(level=os.environ.get("BIRTHMARK_LOG", "WARNING").upper(), handlers=[handler])
    for name in ("alembic", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)  # what they say at DEBUG drowns what happens here
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it reports each bad request of a peer as a warning

    def ready(endpoints: dict[str, Any]) -> None:
        if as_json:
            typer.echo(json.dumps(endpoints))
        else:
            dps, hub = endpoints["dps"], endpoints["iothub"]
            typer.echo(f"DPS      {dps['host']}:8883  ID scope {dps['id_scope']}")
            typer.echo(f"IoT Hub  {hub['host']}:8883")
            typer.echo(f"AWS IoT  {endpoints['aws']['endpoint_url']}  data {endpoints['aws']['data_endpoint']}:8883")
            typer.echo(f"EST      {endpoints['est']['url']}")
            typer.echo(f"Health   {endpoints['health_url']}")
            typer.echo("Ready. `birthmark env` prints what clients need.")
        typer.get_text_stream("stdout").flush()

    try:
        with refusals_shown(as_json=as_json):
            settings = read_settings(
                config,
                os.environ,
                data=None if data is None else str(data),
                listen=tuple(listen) if listen else None,
                host=host,
                database=database,
                health_listen=tuple(health_listen) if health_listen else None,
            )
            run(settings, ready)
    except typer.Exit as leaving:
        if isinstance(leaving.__cause__, ConfigInvalidError):
            raise typer.Exit(WRONG_USAGE) from leaving
        raise
