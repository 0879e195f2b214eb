"""Which agent a command is about, how it is opened, and what its status is."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from birthmark.agent.files import Places
from birthmark.agent.service import Agent
from birthmark.cli.agent_place import AgentPlace
from birthmark.cli.agent_status import status_row, told
from birthmark.cli.common import emit, working
from birthmark.cli.options import JsonOption
from birthmark.errors import BirthmarkError


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """Which agent, and how it is shown."""

    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            envvar="BIRTHMARK_AGENT_CONFIG",
            readable=False,
            help="Default: ROOT/etc/aziot/config.toml.",
        ),
    ] = None
    root: Annotated[
        Path, typer.Option(envvar="BIRTHMARK_AGENT_ROOT", help="Where etc/aziot and var/lib/aziot are.")
    ] = Path("/")
    as_json: JsonOption = False

    @property
    def places(self) -> Places:
        return Places(self.root)

    @property
    def file(self) -> Path:
        return self.config or self.places.config

    @property
    def place(self) -> AgentPlace:
        return AgentPlace(self.root, self.file)

    def show(self, agent: Agent) -> dict[str, Any]:
        """Print the agent's status, and return it."""
        row = status_row(agent, self.places)
        emit(self.as_json, row if self.as_json else row | {"certificates": told(row["certificates"])})
        return row

    def do(self, work: Callable[[Agent], Coroutine[Any, Any, object]]) -> None:
        """Work as the agent, alone, and show its status; a failure is remembered for `status`."""
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
