"""`birthmark agent install|uninstall` and `birthmark server install|uninstall`."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from birthmark.cli.common import FileUnusableError, say
from birthmark.cli.installing import Installer, Step, groups_of
from birthmark.cli.options import JsonOption, command, commands
from birthmark.cli.units import Service, agent_service, server_service
from birthmark.text import reason_of

app = commands("The server as a service of this machine, or of an image.", "birthmark server install --dry-run")

RootOption = Annotated[Path, typer.Option("--root", help="An image's directory; default: this machine.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, change nothing.")]
ProgramOption = Annotated[
    str | None, typer.Option("--program", metavar="PATH", help="birthmark as the service calls it; default: this one.")
]


def add_to(agent: typer.Typer) -> None:
    """Mount the agent's two commands."""
    command(agent, "birthmark agent install --dry-run", "install")(install_agent)
    command(agent, "birthmark agent uninstall --dry-run", "uninstall")(uninstall_agent)


def install_agent(
    root: RootOption = Path("/"),
    program: ProgramOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Install the agent as a service: user, modes, unit. Again is harmless; `uninstall` takes it back."""
    _do(agent_service(_program(program), groups_of(root)), root, Installer.install, dry_run=dry_run, as_json=as_json)


def uninstall_agent(root: RootOption = Path("/"), dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Take back what `install` made; identity and configuration stay."""
    _do(agent_service(_program(None), groups_of(root)), root, Installer.uninstall, dry_run=dry_run, as_json=as_json)


@command(app, "birthmark server install --host cloud.example", "install")
def install_server(
    host: Annotated[str | None, typer.Option(help="Name under which clients reach it, as for `serve`.")] = None,
    root: RootOption = Path("/"),
    program: ProgramOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Install the server as a service: user, data directory, unit. Again is harmless; `uninstall` takes it back."""
    _do(server_service(_program(program), host), root, Installer.install, dry_run=dry_run, as_json=as_json)


@command(app, "birthmark server uninstall --dry-run", "uninstall")
def uninstall_server(root: RootOption = Path("/"), dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Take back what `install` made; the data directory stays."""
    _do(server_service(_program(None), None), root, Installer.uninstall, dry_run=dry_run, as_json=as_json)


def _do(
    service: Service, root: Path, plan: Callable[[Installer], Iterator[Step]], *, dry_run: bool, as_json: bool
) -> None:
    installer, count = Installer(service, root.resolve()), 0
    try:
        for step in plan(installer):
            count += 1
            if not dry_run:
                step.do()
            say(as_json, {"step": step.what, "done": not dry_run}, ("would " if dry_run else "") + step.what)
    except OSError as error:
        raise FileUnusableError(path=str(error.filename or root), reason=reason_of(error)) from error
    if not count:
        typer.echo("Nothing to do.", err=True)


def _program(given: str | None) -> str:
    """Return the path by which the service calls this program."""
    return given or shutil.which(sys.argv[0]) or str(Path(sys.executable).with_name("birthmark"))
