"""Process of `birthmark agent run`: only the agent, for devices with little memory.

The CLI library uses a fifth of the agent's memory and is not needed after option parsing. The command therefore
replaces itself with this program in the same process. Errors are printed as in the CLI.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from birthmark.agent.connection_loop import Loop
from birthmark.agent.control_socket import ControlCommand, ControlServer, answering
from birthmark.agent.identity_lifecycle import Agent
from birthmark.agent.renewal_scheduler import taken_by
from birthmark.agent.state_directory import control_socket_of
from birthmark.cli.local_agent_access import AgentLocation
from birthmark.cli.output.command_refusal_journal import log_refusal
from birthmark.clock_and_entropy import SystemClock
from birthmark.errors import BirthmarkError
from birthmark.systemd_notify import notifier
from birthmark.untrusted_json_and_text import printable

log = logging.getLogger(__name__)

# From the service manager, a terminal, and 0.1.0 commands.
_SIGNALS = {
    signal.SIGTERM: ControlCommand.STOP,
    signal.SIGINT: ControlCommand.STOP,
    signal.SIGUSR1: ControlCommand.RENEW,
    signal.SIGUSR2: ControlCommand.REPROVISION,
}


@dataclass(slots=True)
class EventPrinter:
    """Prints events as text lines or JSON; a closed output does not stop the agent."""

    as_json: bool
    _is_heard: bool = True

    def __call__(self, event: str, facts: dict[str, object]) -> None:
        now = SystemClock().now().isoformat(timespec="seconds")
        line = f"{now[11:19]}  {event}" + "".join(f"  {name} {value}" for name, value in facts.items())
        told = json.dumps({"at": now, "event": event, **facts}) if self.as_json else printable(line)
        try:
            sys.stdout.write(f"{told}\n")
            sys.stdout.flush()
        except (OSError, ValueError) as error:  # a full disk or a closed pipe
            if self._is_heard:
                log.error("agent.output_lost: %s", error)  # noqa: TRY400 - no traceback: not our error
            self._is_heard = False
        else:
            self._is_heard = True


def become(place: AgentLocation, *, as_json: bool, telemetry_s: float | None) -> NoReturn:
    """Replace this process with the agent; its PID, files and systemd unit are unchanged."""
    given = {"root": str(place.root), "file": str(place.file), "as_json": as_json, "telemetry_s": telemetry_s}
    sys.stdout.flush()
    sys.stderr.flush()
    words = [sys.executable, "-m", __name__, json.dumps(given), *sys.argv[1:]]
    os.execv(sys.executable, words)  # noqa: S606 (same interpreter)


async def serve(agent: Agent, tell: EventPrinter, telemetry_s: float | None) -> None:
    """Run the agent's loop until it is stopped."""
    orders, manager = ControlServer(), notifier()

    def heard(event: str, facts: dict[str, object]) -> None:
        tell(event, facts)
        manager.status(event, facts)

    loop = asyncio.get_running_loop()
    for number, order in _SIGNALS.items():
        loop.add_signal_handler(number, orders.give, order)
    async with manager.watched(), answering(control_socket_of(agent.places.lock), taken_by(agent, orders)):
        await Loop(agent, orders, heard, telemetry_s, log_refusal).run()


def main(words: Sequence[str]) -> int:
    """Run the agent process, and return the exit code."""
    logging.getLogger("birthmark").addHandler(logging.NullHandler())
    logging.basicConfig(level=os.environ.get("BIRTHMARK_LOG", "ERROR").upper(), stream=sys.stderr)
    given = json.loads(words[1])
    sys.argv = ["birthmark", *words[2:]]  # for fixes that quote the command
    try:
        with AgentLocation(Path(given["root"]), Path(given["file"])).working(takes_last_good=True) as agent:
            asyncio.run(serve(agent, EventPrinter(given["as_json"]), given["telemetry_s"]))
    except BirthmarkError as error:
        from birthmark.cli.output.command_output import tell

        return tell(error, as_json=given["as_json"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
