"""`birthmark`: one command that mounts every other. A subcommand's module is loaded when it is asked for."""

import importlib
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from birthmark import __version__
from birthmark.cli.common import exit_code_of
from birthmark.errors import BirthmarkError

# Name -> module of `birthmark.cli` that holds it as `app`, in the order of a device's life.
COMMANDS = {
    "demo": "demo",
    "serve": "serve",
    "env": "env",
    "element": "element",
    "manifest": "manifest",
    "enroll": "enroll",
    "ca": "ca",
    "dps": "dps",
    "hub": "hub",
    "aws": "aws",
    "est": "est",
    "device": "device",
    "agent": "agent",
    "why": "why",
}


class _Lazy(TyperGroup):
    """Finds a subcommand by importing its module."""

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"birthmark.cli.{COMMANDS[cmd_name]}")
        module.app._add_completion = False  # noqa: SLF001 - typer's own switch; completion belongs to the root
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command


app = typer.Typer(cls=_Lazy, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"birthmark {__version__}")
        raise typer.Exit


@app.callback()
def root(
    _show: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """From a chip's birth certificate to a connected device that renews itself: Azure, AWS, your own server.

    Start with: birthmark demo azure
    """


def main() -> None:
    """Run the command line; a refusal that a command let through is shown as one."""
    try:
        app()
    except BirthmarkError as error:
        typer.echo(
            f"{error.message}\n  Why: {error.explain_cause()}\n  Fix: {error.explain_fix()}\n  Code: {error.code}",
            err=True,
        )
        sys.exit(exit_code_of(error))
