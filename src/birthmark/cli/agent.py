"""`birthmark agent`: a device's identity by configuration: issue, register, stay connected, renew."""

import asyncio
import json
import logging
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from birthmark.agent.checks import Checks, Result
from birthmark.agent.config import ConfigInvalidError, ConfigUnsupportedError, read_config
from birthmark.agent.control import AgentNotRunningError, AgentRunningError, Order, locked, running_pid, tell
from birthmark.agent.control import stop as stop_running
from birthmark.agent.files import Places, StateNotWritableError
from birthmark.agent.run import Loop, Orders
from birthmark.agent.service import Agent, Status, open_agent
from birthmark.cli.asking import only_typed
from birthmark.cli.common import ACTION_NEEDED, FAILED, WRONG_USAGE, certificate_row, emit, telling_refusals
from birthmark.cli.identity import JsonOption
from birthmark.cli.journal import note
from birthmark.clock import SystemClock, SystemEntropy
from birthmark.errors import BirthmarkError
from birthmark.links import Identity, Links, Trust, open_links
from birthmark.text import printable

app = typer.Typer(
    help="Keep a device's identity: get a certificate, register, stay connected, renew.",
    epilog="Example: birthmark agent check --offline",
    no_args_is_help=True,
)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="BIRTHMARK_AGENT_CONFIG", help="Default: ROOT/etc/aziot/config.toml."),
]
RootOption = Annotated[
    Path, typer.Option("--root", envvar="BIRTHMARK_AGENT_ROOT", help="Where etc/aziot and var/lib/aziot are.")
]
_ROOT = Path("/")
_WAIT_S = 60.0
logging.getLogger("birthmark").addHandler(logging.NullHandler())  # what matters is printed; BIRTHMARK_LOG shows more
_SIGNS = {Result.OK: "ok", Result.WARNING: "warning", Result.ERROR: "ERROR", Result.SKIPPED: "-"}


def _links(identity: Identity | None, trust: Trust) -> Links:
    return open_links(identity, trust, SystemClock())


@contextmanager
def _telling_refusals(as_json: bool) -> Iterator[None]:
    """A mistake in the configuration is wrong usage; what this agent does not do needs somebody to act."""
    try:
        with telling_refusals(as_json=as_json):
            yield
    except typer.Exit as leaving:
        if isinstance(leaving.__cause__, ConfigInvalidError):
            raise typer.Exit(WRONG_USAGE) from leaving
        if isinstance(leaving.__cause__, ConfigUnsupportedError):
            raise typer.Exit(ACTION_NEEDED) from leaving
        raise


@contextmanager
def _agent(config: Path | None, root: Path) -> Iterator[Agent]:
    """Open the agent to look at it; nothing is written before the lock is taken."""
    places = Places(root)
    agent = open_agent(
        read_config(config or places.config),
        places,
        make_links=_links,
        environment=os.environ,
        clock=SystemClock(),
        entropy=SystemEntropy(),
    )
    with closing(agent.identities.keys):
        yield agent


@contextmanager
def _working(config: Path | None, root: Path) -> Iterator[Agent]:
    """Open the agent to work with it, alone."""
    places = Places(root)
    read_config(config or places.config)  # a mistake in it is told before anything is made
    with _placed(config or places.config, root), _prepared(places), _agent(config, root) as agent:
        for warning in agent.config.warnings:
            typer.echo(printable(f"{agent.config.file}:{warning.line}: {warning.key} {warning.detail}"), err=True)
        yield agent


@contextmanager
def _prepared(places: Places) -> Iterator[None]:
    places.prepare()
    with locked(places.lock):
        yield


@contextmanager
def _placed(config: Path, root: Path) -> Iterator[None]:
    """Let a refusal of the root say which, and where the configuration is: that stays when the state goes elsewhere."""
    try:
        yield
    except (AgentRunningError, StateNotWritableError) as error:
        error.add_facts(config=config, root=root)
        raise


@app.command()
def check(
    config: ConfigOption = None,
    root: RootOption = _ROOT,
    offline: Annotated[bool, typer.Option("--offline", help="Only what can be told without a network.")] = False,
    warnings_as_errors: Annotated[bool, typer.Option("--warnings-as-errors", help="Fail on warnings too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check the configuration, certificates, keys, clock and servers. Changes nothing.

    Example: birthmark agent check --offline
    """

    async def body(agent: Agent) -> list[Any]:
        return await Checks(agent, offline).run()

    with _telling_refusals(as_json), _agent(config, root) as agent:
        found = asyncio.run(body(agent))
    for one in found:
        if as_json:
            typer.echo(json.dumps({"id": one.id, "result": one.result, "details": one.details}))
        else:
            typer.echo(printable(f"{_SIGNS[one.result]:<8} {one.id}" + (f": {one.details}" if one.details else "")))
    bad = {Result.ERROR, Result.WARNING} if warnings_as_errors else {Result.ERROR}
    if any(one.result in bad for one in found):
        raise typer.Exit(FAILED)


@app.command()
def apply(config: ConfigOption = None, root: RootOption = _ROOT, as_json: JsonOption = False) -> None:
    """Get a certificate if none is good, register, and print where the device belongs.

    Example: birthmark agent apply --config config.toml --root ./device
    """
    with _telling_refusals(as_json), _working(config, root) as agent:
        _done(agent, agent.apply())
        emit(as_json, _row(agent.status(), agent.places))
    again = shlex.join(["birthmark", "agent", "run", *sys.argv[3:]])
    typer.echo(f"Now stay connected and renew in time: {again}", err=True)


@app.command()
def run(
    config: ConfigOption = None,
    root: RootOption = _ROOT,
    telemetry: Annotated[
        float | None, typer.Option("--telemetry", metavar="SECONDS", min=0.1, help="Send a sign of life so often.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Stay connected to the hub and renew in time, until stopped.

    Example: birthmark agent run
    """
    logging.basicConfig(level=os.environ.get("BIRTHMARK_LOG", "ERROR").upper(), stream=sys.stderr)

    def told(event: str, facts: dict[str, object]) -> None:
        now = SystemClock().now().isoformat(timespec="seconds")
        if as_json:
            typer.echo(json.dumps({"at": now, "event": event, **facts}))
        else:
            typer.echo(
                printable(f"{now[11:19]}  {event}" + "".join(f"  {name} {value}" for name, value in facts.items()))
            )
        typer.get_text_stream("stdout").flush()

    async def body(agent: Agent) -> None:
        orders = Orders()
        loop = asyncio.get_running_loop()
        for order in Order:
            loop.add_signal_handler(order.value, orders.give, order)
        loop.add_signal_handler(2, orders.give, Order.STOP)  # SIGINT: somebody pressed Ctrl-C
        await Loop(agent, orders, told, telemetry, note).run()

    with _telling_refusals(as_json), _working(config, root) as agent:
        asyncio.run(body(agent))


@app.command()
def status(config: ConfigOption = None, root: RootOption = _ROOT, as_json: JsonOption = False) -> None:
    """Show the certificate, when it is renewed, the hub, and the latest trouble. Asks nobody. 1 when not connected.

    Example: birthmark agent status --json
    """
    with _telling_refusals(as_json), _agent(config, root) as agent:
        row = _row(agent.status(), agent.places)
        emit(as_json, row)
    if not row["connected"]:
        raise typer.Exit(FAILED)


@app.command()
def renew(config: ConfigOption = None, root: RootOption = _ROOT, as_json: JsonOption = False) -> None:
    """Renew now, and prove the new certificate before it replaces the old; a running agent is told to.

    Example: birthmark agent renew
    """
    with _telling_refusals(as_json):
        if not _told(config, root, Order.RENEW, "renewals", as_json):
            with _working(config, root) as agent:
                _done(agent, _renew_once(agent))
                emit(as_json, _row(agent.status(), agent.places))


@app.command()
def reprovision(config: ConfigOption = None, root: RootOption = _ROOT, as_json: JsonOption = False) -> None:
    """Register again at DPS, as after a move to another hub; a running agent is told to.

    Example: birthmark agent reprovision
    """
    with _telling_refusals(as_json):
        if not _told(config, root, Order.REPROVISION, "registered_at", as_json):
            with _working(config, root) as agent:
                _done(agent, agent.apply())
                emit(as_json, _row(agent.status(), agent.places))


@app.command()
def stop(root: RootOption = _ROOT, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Stop the running agent and wait until it is gone.

    Example: birthmark agent stop
    """
    del config  # which agent is told by the root alone
    with telling_refusals(as_json=as_json):
        only_typed(False, "where the configuration is read; which agent to stop is told by --root alone", "--config")
        try:
            pid = stop_running(Places(root).lock, SystemClock())
        except AgentNotRunningError:  # what was wanted is so
            emit(as_json, {"stopped": None})
            typer.echo("No agent was running here.", err=True)
        else:
            emit(as_json, {"stopped": pid})


async def _renew_once(agent: Agent) -> None:
    held = await agent.ensure()
    _fresh, hub = await agent.renew(held)
    await hub.close()
    agent.update(is_connected=False)


def _done(agent: Agent, work: Any) -> None:
    """Do it, and remember for `status` why it failed."""
    try:
        asyncio.run(work)
    except BirthmarkError as error:
        agent.note(error)
        raise


def _told(config: Path | None, root: Path, order: Order, sign: str, as_json: bool) -> bool:
    """Tell a running agent, and wait until its state shows that it was done. Say whether there is one."""
    places = Places(root)
    if running_pid(places.lock) is None:
        return False
    clock = SystemClock()
    with _agent(config, root) as agent:
        before = agent.state
    try:
        tell(places.lock, order)
    except AgentNotRunningError:
        return False
    deadline = clock.monotonic() + _WAIT_S
    while clock.monotonic() < deadline:
        with _agent(config, root) as agent:
            if getattr(agent.state, sign) != getattr(before, sign):
                emit(as_json, _row(agent.status(), places))
                return True
            if agent.state.failures > before.failures and agent.state.error is not None:
                error = agent.state.error
                for line in (str(error), f"  Why: {error.cause}", f"  Fix: {error.fix}", f"  Code: {error.code}"):
                    typer.echo(printable(line), err=True)
                raise typer.Exit(FAILED)
        _pause()
    typer.echo("The agent was told and has not answered yet; see: birthmark agent status", err=True)
    raise typer.Exit(FAILED)


def _pause() -> None:
    import time

    time.sleep(0.1)


def _row(status: Status, places: Places) -> dict[str, Any]:
    state = status.state
    pid = running_pid(places.lock)
    row: dict[str, Any] = {
        "running": pid not in (None, os.getpid()),
        "connected": state.is_connected and pid is not None,
        "hub": state.hub,
        "device_id": state.device_id,
        "registration_id": state.registration_id,
    }
    if status.identity is not None:
        row |= certificate_row(status.identity.leaf)
        row["key"] = status.identity.key.handle.describe()
    row["renew_at"] = None if status.renew_at is None else status.renew_at.isoformat()
    row["renewals"] = state.renewals
    if state.error is not None:
        row |= {"error": state.error.code, "cause": state.error.cause, "fix": state.error.fix}
    return row
