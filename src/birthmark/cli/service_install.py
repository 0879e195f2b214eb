"""`birthmark agent install|uninstall` and `birthmark server install|uninstall`."""

import ipaddress
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from birthmark import errors
from birthmark.cli.command_factory import JsonOption
from birthmark.cli.input_files import FileUnusableError
from birthmark.cli.output.command_output import say, without
from birthmark.cli.service_installer import Installer, InstallStep, groups_of
from birthmark.cli.systemd_units import SystemdService, agent_service, is_hidden, server_service
from birthmark.ownership_and_sudo_commands import as_root
from birthmark.pki.hostname_verification import find_host_error
from birthmark.untrusted_json_and_text import reason_of

RootOption = Annotated[Path, typer.Option("--root", help="Root directory of a system image. `/` is this machine.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the planned changes without making them.")]
ProgramOption = Annotated[
    str | None,
    typer.Option(
        "--program", metavar="PATH", help="Path of the `birthmark` program for the service. Default: this program."
    ),
]


EVERYWHERE = ("0.0.0.0",)  # noqa: S104 - a host name implies remote access


class OutOfReachError(errors.InvalidRequestError):
    """The service cannot read the file."""

    code = "install.out_of_reach"
    cause = (
        "A service cannot access {path}, because services have no access to /home, /root, /run/user, /tmp, or /var/tmp."
    )
    fix = "Move the file to a directory below /opt, /usr or /etc, and use the new path: `{command}`"
    path: str
    command: str


def install_agent(
    root: RootOption = Path("/"),
    program: ProgramOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Install the agent as a service.

    Creates the service's user and systemd unit, and sets file permissions. `uninstall` reverses it.
    """
    service = agent_service(_program(program), groups_of(root))
    _do(service, root, Installer.install, dry_run=dry_run, as_json=as_json)


def uninstall_agent(root: RootOption = Path("/"), dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Undo `agent install`.

    Identity and configuration stay.
    """
    _do(agent_service("birthmark", groups_of(root)), root, Installer.uninstall, dry_run=dry_run, as_json=as_json)


def install_server(
    host: Annotated[str | None, typer.Option(help="Host name for clients, as for `serve`.")] = None,
    listen: Annotated[
        list[str] | None,
        typer.Option(help="Address to listen on; may be repeated. Default with --host: every address (0.0.0.0)."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration file of the service (TOML), as for `serve --config`; see /etc.")
    ] = None,
    root: RootOption = Path("/"),
    program: ProgramOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Install the server as a service.

    Creates user, data directory and unit. You can run it again; `uninstall` reverses it.
    """
    place = _program(program)
    if config is not None and is_hidden(str(config.absolute())):
        typed = without("--config", takes_value=True)
        raise OutOfReachError(path=str(config), command=f"{typed} --config {shlex.quote(f'/etc/{config.name}')}")
    where = tuple(listen or (EVERYWHERE if host and config is None and not _is_here(host) else ()))
    if host is not None and (wrong := find_host_error(host)):
        raise typer.BadParameter(f"{host!a} is a host {wrong}", param_hint="--host")
    service = server_service(place, host, where, None if config is None else str(config.absolute()))
    _do(service, root, Installer.install, dry_run=dry_run, as_json=as_json)
    if where == EVERYWHERE and not listen:
        typer.echo("It listens on all addresses of the machine. To use only one, add --listen ADDRESS.", err=True)


def uninstall_server(root: RootOption = Path("/"), dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Undo `server install`.

    The data directory stays.
    """
    _do(server_service("birthmark", None), root, Installer.uninstall, dry_run=dry_run, as_json=as_json)


def _do(
    service: SystemdService,
    root: Path,
    plan: Callable[[Installer], Iterator[InstallStep]],
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    installer, count = Installer(service, root.resolve()), 0
    try:
        for step in plan(installer):
            count += 1
            if not dry_run:
                step.do()
            say(as_json, {"step": step.what, "done": not dry_run}, ("would " if dry_run else "") + step.what)
    except OSError as error:
        refused = FileUnusableError(path=str(error.filename or root), reason=reason_of(error))
        if isinstance(error, PermissionError) and os.geteuid():
            this = shutil.which(sys.argv[0]) or sys.argv[0]  # sudo has its own search path
            refused.quote(fix=f"Do it as root: `{as_root(shlex.join([this, *sys.argv[1:]]))}`")
        raise refused from error
    if not count:
        typer.echo("Nothing to do.", err=True)


def _program(given: str | None) -> str:
    """Return the path at which the service starts this program. Raise `OutOfReachError`."""
    path = given or shutil.which(sys.argv[0]) or str(Path(sys.executable).with_name("birthmark"))
    if is_hidden(path):
        typed = without("--program", takes_value=True)
        raise OutOfReachError(path=path, command=f"{typed} --program /opt/birthmark/bin/birthmark")
    return path


def _is_here(host: str) -> bool:
    """Return whether a host name is local to this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
