"""`birthmark test-server`: a server for tests of any language."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from birthmark.cli.command_factory import JsonOption
from birthmark.cli.output.command_output import FAILED


def trial(
    config: Annotated[
        Path | None, typer.Option(help="Configuration file (TOML), see docs/reference/server-config.md.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Address to listen on. Default: a free one of 127.0.0.0/8.")
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Run a test server with temporary data.

    Prints its endpoints.

    Each input line is a command with a JSON line as its result: enrolled devices with their certificates and keys, and
    faults. `help` lists the commands. `reset` deletes connections, devices and messages, keeps CA and credentials, and
    prints the endpoints again. The server ends at SIGTERM, or with its input if that is a pipe or a terminal. Exit
    code 1 means that a command was rejected.
    """
    from birthmark.clock_and_entropy import SystemEntropy
    from birthmark.operator_api.client.vendor_tool_environment import as_shell, proxy_bypass_variables
    from birthmark.server.resettable_test_server import create_temporary_directory, find_free_address, run_trial
    from birthmark.server.server_process import begin_log
    from birthmark.server.settings import read_settings
    from birthmark.testing.stdin_command_interpreter import Interpreter

    begin_log()

    def tell(answer: Mapping[str, Any]) -> None:
        typer.echo(json.dumps(answer))
        typer.get_text_stream("stdout").flush()

    def say(endpoints: Mapping[str, Any]) -> None:
        if as_json or "error" in endpoints:
            tell(endpoints)
            return
        typer.echo(as_shell(endpoints), nl=False)
        typer.get_text_stream("stdout").flush()

    words = Interpreter()
    with create_temporary_directory() as made:
        data = made / "data"
        place: dict[str, Any] = {"data": str(data), "database": f"sqlite:///{data / 'birthmark.db'}"}
        bound = read_settings(config, {}, **place).bound
        ports = (bound.mqtt, bound.https, bound.est, bound.health, bound.pki)
        address = listen or find_free_address(ports, SystemEntropy())
        behind = find_free_address(ports, SystemEntropy())
        os.environ.update(proxy_bypass_variables(address, os.environ))  # local setup code uses its own address
        run_trial(read_settings(config, {}, **place, listen=(address,)), behind, words.answer, say, tell)
    if words.refused:
        raise typer.Exit(FAILED)
