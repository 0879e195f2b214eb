"""Agent selection, access and status of a command."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from birthmark.agent.identity_lifecycle import Agent
from birthmark.agent.state_directory import AgentPaths
from birthmark.cli.command_factory import JsonOption
from birthmark.cli.local_agent_access import AgentLocation
from birthmark.cli.output.agent_status import format_certificates, status_row
from birthmark.cli.output.command_output import emit, working
from birthmark.errors import BirthmarkError


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """Agent selection and output format."""

    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            envvar="BIRTHMARK_AGENT_CONFIG",
            readable=False,
            help="Configuration file. Default: ROOT/etc/aziot/config.toml.",
        ),
    ] = None
    root: Annotated[
        Path, typer.Option(envvar="BIRTHMARK_AGENT_ROOT", help="Directory that contains etc/aziot and var/lib/aziot.")
    ] = Path("/")
    as_json: JsonOption = False

    @property
    def places(self) -> AgentPaths:
        return AgentPaths(self.root)

    @property
    def file(self) -> Path:
        return self.config or self.places.config

    @property
    def place(self) -> AgentLocation:
        return AgentLocation(self.root, self.file)

    def show(self, agent: Agent) -> dict[str, Any]:
        """Print the agent's status and return it."""
        row = status_row(agent, self.places)
        emit(self.as_json, row if self.as_json else row | {"certificates": format_certificates(row["certificates"])})
        return row

    def run(self, work: Callable[[Agent], Coroutine[Any, Any, object]]) -> None:
        """Run work as the agent under its lock, and show its status; an error is stored for `status`."""
        with self.place.working() as agent:
            working("Asking the servers")
            try:
                asyncio.run(work(agent))
            except BirthmarkError as error:
                agent.note(error)
                raise
            self.show(agent)
            if (warning := agent.enrollment_warning()) is not None:
                typer.echo(warning, err=True)
            if agent.unwritten is not None:
                raise agent.unwritten
