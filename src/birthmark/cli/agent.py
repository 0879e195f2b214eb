"""`birthmark agent`: configuration-driven device identity: issue, register, stay connected, renew."""

import asyncio
import contextlib
import logging
import shlex
import sys
import time
from typing import Annotated

import typer

from birthmark import flock
from birthmark.agent.control_socket import ControlCommand
from birthmark.agent.diagnostic_checks import CheckResult, Checks
from birthmark.agent.identity_lifecycle import Agent
from birthmark.agent.running_instance import AgentInProgramError, AgentNotRunningError, tell
from birthmark.agent.running_instance import stop as stop_running
from birthmark.agent.state_directory import DEVICE_ID
from birthmark.cli.low_memory_agent_process import become
from birthmark.cli.option_checks_and_confirmation import only_typed
from birthmark.cli.options.agent import AgentOptions
from birthmark.cli.options.duration import DurationParser
from birthmark.cli.output.command_output import FAILED, emit, say
from birthmark.cli.output.table import wrap_to_terminal
from birthmark.clock_and_entropy import SystemClock
from birthmark.errors import BirthmarkError
from birthmark.pki.certificates import Certificate
from birthmark.untrusted_json_and_text import printable

_WAIT_S = 60.0
logging.getLogger("birthmark").addHandler(logging.NullHandler())  # prints only results; BIRTHMARK_LOG shows more
_SIGNS = {CheckResult.OK: "ok", CheckResult.WARNING: "warning", CheckResult.ERROR: "ERROR", CheckResult.SKIPPED: "-"}


def check(
    options: AgentOptions,
    offline: Annotated[bool, typer.Option("--offline", help="Run only the checks that need no network.")] = False,
    warnings_as_errors: Annotated[
        bool, typer.Option("--warnings-as-errors", help="Exit with an error on warnings as well.")
    ] = False,
) -> None:
    """Check the agent's configuration without changing anything.

    Covers certificates, keys, clock and servers.
    """
    with options.place.opened() as agent:
        found = asyncio.run(Checks(agent, offline).run())
    for one in found:
        line = f"{_SIGNS[one.result]:<8} {one.id}" + (f": {one.details}" if one.details else "")
        say(options.as_json, {"id": one.id, "result": one.result, "details": one.details}, line)
    bad = {CheckResult.ERROR, CheckResult.WARNING} if warnings_as_errors else {CheckResult.ERROR}
    if any(one.result in bad for one in found):
        raise typer.Exit(FAILED)


def apply(options: AgentOptions) -> None:
    """Provision the device and print its assignment.

    Requests a certificate if no valid one exists, registers the device and prints its hub.
    """
    options.run(Agent.apply)
    again = shlex.join(["birthmark", "agent", "run", *sys.argv[3:]])
    typer.echo(f"Now stay connected and renew in time: {again}", err=True)


def run(
    options: AgentOptions,
    telemetry: Annotated[
        float | None,
        typer.Option(
            parser=DurationParser(minimum=0.1),
            metavar="DURATION",
            help="Interval between heartbeat messages, for example 30s.",
        ),
    ] = None,
) -> None:
    """Stay connected to the hub and renew certificates in time.

    Runs until stopped.
    """
    options.place.read(takes_last_good=True)  # report configuration errors before any action
    become(options.place, as_json=options.as_json, telemetry_s=telemetry)


def status(options: AgentOptions) -> None:
    """Show the agent's certificate, hub and latest error.

    Also shows the planned renewal. Makes no network request. Exit code 1 when not connected.
    """
    with options.place.opened(takes_last_good=True) as agent:
        row = options.show(agent)
    if not row["connected"]:
        raise typer.Exit(FAILED)


def renew(options: AgentOptions) -> None:
    """Renew all certificates now.

    Each new certificate is verified before it replaces the old one. A running agent does the work.
    """
    before = _managed_certificates(options)
    try:
        if not _send_and_wait(options, ControlCommand.RENEW, "renewals"):
            options.run(_renew_once)
    finally:  # includes renewals before a rejection
        for name, leaf in _managed_certificates(options).items():
            if leaf != before.get(name):
                said = f"Renewed {name}: {leaf.thumbprint.hex()}, until {leaf.not_after:%Y-%m-%d %H:%M:%S} UTC"
                typer.echo(said, err=True)


def _managed_certificates(options: AgentOptions) -> dict[str, Certificate]:
    """Return the readable certificates that the agent renews, by name."""
    found: dict[str, Certificate] = {}
    with contextlib.suppress(BirthmarkError), options.place.opened(takes_last_good=True) as agent:
        for name in agent.managed:
            with contextlib.suppress(BirthmarkError):
                if (held := agent.identities.slot(name).current()) is not None:
                    found[name] = held.leaf
    return found


def reprovision(options: AgentOptions) -> None:
    """Register with DPS again, for example after a hub move.

    A running agent does the work.
    """
    if not _send_and_wait(options, ControlCommand.REPROVISION, "registered_at"):
        options.run(Agent.apply)


def forget_time(options: AgentOptions) -> None:
    """Discard the time learned from a wrong server.

    The agent uses the machine's clock and queries the time servers again. If an agent is running, it performs the
    operation.
    """
    try:
        tell(options.places.lock, ControlCommand.FORGET_TIME, SystemClock())
    except AgentNotRunningError:
        with options.place.working(takes_last_good=True) as agent:
            agent.forget_time()
    with options.place.opened(takes_last_good=True) as agent:
        options.show(agent)


def stop(options: AgentOptions) -> None:
    """Stop the running agent and wait until it has exited."""
    only_typed(False, "to commands that read the configuration; only --root selects the agent to stop", "--config")
    try:
        pid = stop_running(options.places.lock, SystemClock())
    except AgentInProgramError as error:
        error.add_facts(root=options.root)
        raise
    except AgentNotRunningError:  # already stopped
        emit(options.as_json, {"stopped": None})
        typer.echo("No agent was running here.", err=True)
    else:
        emit(options.as_json, {"stopped": pid})


async def _renew_once(agent: Agent) -> None:
    held = await agent.ensure()
    for name in agent.managed or (DEVICE_ID,):  # if empty, the error reports that nothing is renewed here
        if name != DEVICE_ID:
            await agent.keeper.renew(agent.managed[name])
            continue
        _fresh, hub = await agent.renew(held)
        if hub is not None:
            await hub.close()
        agent.update(is_connected=False)


def _send_and_wait(options: AgentOptions, order: ControlCommand, sign: str) -> bool:
    """Send a command to a running agent and wait until its state changes.

    Return False if no agent is running.
    """
    lock = options.places.lock
    if not flock.is_locked(lock):
        return False
    clock = SystemClock()
    with options.place.opened(takes_last_good=True) as agent:
        before = agent.state
    try:
        tell(lock, order, clock)
    except AgentNotRunningError:
        return False
    deadline = clock.monotonic() + _WAIT_S
    while clock.monotonic() < deadline:
        with options.place.opened(takes_last_good=True) as agent:
            if getattr(agent.state, sign) != getattr(before, sign):
                options.show(agent)
                return True
            if agent.state.failures > before.failures and agent.state.error is not None:
                error = agent.state.error
                for line in (error.message, f"  Why: {error.cause}", f"  Fix: {error.fix}", f"  Code: {error.code}"):
                    typer.echo(wrap_to_terminal(printable(line), errors=True), err=True)
                raise typer.Exit(FAILED)
        time.sleep(0.1)
    typer.echo(
        "The agent received the request and has not responded yet. Show its state: birthmark agent status", err=True
    )
    raise typer.Exit(FAILED)
