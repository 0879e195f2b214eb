"""`birthmark test-server`: a server for tests of any language."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from birthmark.cli.options import JsonOption


def trial(
    config: Annotated[Path | None, typer.Option(help="TOML file; see docs/reference/server-config.md.")] = None,
    listen: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address to listen on; without, a free one of 127.0.0.0/8.")
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Run a server for tests, whose data is gone at its end. It prints how to reach it.

    Each line `reset` on its input makes it as new again, and it prints the same again: connections, devices and
    messages are gone, CA and credentials stay. It ends with its input where that is a pipe or a terminal, and at
    SIGTERM.
    """
    from birthmark.clock import SystemEntropy
    from birthmark.console.variables import as_shell
    from birthmark.server.run import begin_log
    from birthmark.server.settings import read_settings
    from birthmark.server.trial import directory, free_address, run_trial

    begin_log()

    def say(endpoints: Mapping[str, Any]) -> None:
        typer.echo(json.dumps(endpoints) if as_json else as_shell(endpoints), nl=as_json)
        typer.get_text_stream("stdout").flush()

    with directory() as made:
        data = made / "data"
        place: dict[str, Any] = {"data": str(data), "database": f"sqlite:///{data / 'birthmark.db'}"}
        ports = read_settings(config, {}, **place).bound
        address = listen or free_address((ports.mqtt, ports.https, ports.est, ports.health, ports.pki), SystemEntropy())
        run_trial(read_settings(config, {}, **place, listen=(address,)), say)
