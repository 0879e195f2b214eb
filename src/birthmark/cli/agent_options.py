"""Which agent a command is about, how it is opened, and what its status is."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from birthmark.agent.config import (
    AgentConfig,
    ConfigInvalidError,
    ConfigMissingError,
    ConfigUnsupportedError,
    read_config,
)
from birthmark.agent.control import AgentRunningError, locked
from birthmark.agent.files import Places, StateNotWritableError
from birthmark.agent.lastgood import recall
from birthmark.agent.opening import open_agent
from birthmark.agent.service import Agent
from birthmark.cli.agent_status import status_row, told
from birthmark.cli.common import emit
from birthmark.cli.options import JsonOption
from birthmark.clock import SystemClock, SystemEntropy
from birthmark.errors import BirthmarkError
from birthmark.links.choose import open_links
from birthmark.text import printable


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """Which agent, and how it is shown."""

    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", envvar="BIRTHMARK_AGENT_CONFIG", help="Default: ROOT/etc/aziot/config.toml."),
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

    def read(self, *, takes_last_good: bool = False) -> tuple[AgentConfig, str | None]:
        """Return the configuration, or the last good one in its place and why. Raise one of the config errors."""
        try:
            return read_config(self.file), None
        except (ConfigInvalidError, ConfigUnsupportedError, ConfigMissingError) as error:
            found = recall(self.places, self.file) if takes_last_good else None
            if found is None:
                raise
            config, at = found
            return config, f"the last good one, of {at:%Y-%m-%d %H:%M} UTC, is in use. {error.explain_cause()}"

    @contextmanager
    def opened(self, *, takes_last_good: bool = False) -> Iterator[Agent]:
        """Open the agent to look at it; nothing is written before the lock is taken."""
        config, instead = self.read(takes_last_good=takes_last_good)
        agent = open_agent(
            config,
            self.places,
            make_links=lambda identity, trust: open_links(identity, trust, SystemClock()),
            environment=os.environ,
            clock=SystemClock(),
            entropy=SystemEntropy(),
        )
        agent.instead_of_config = instead
        with closing(agent.identities.keys):
            yield agent

    @contextmanager
    def working(self, *, takes_last_good: bool = False) -> Iterator[Agent]:
        """Open the agent to work with it, alone."""
        self.read(takes_last_good=takes_last_good)  # a mistake in it is told before anything is made
        try:
            self.places.prepare()
            with locked(self.places.lock), self.opened(takes_last_good=takes_last_good) as agent:
                for warning in agent.config.warnings:
                    told = f"{warning.file or agent.config.file}:{warning.line}: {warning.key} {warning.detail}"
                    typer.echo(printable(told), err=True)
                if agent.instead_of_config is not None:
                    typer.echo(printable(f"{self.file} cannot be used: {agent.instead_of_config}"), err=True)
                agent.keeper.recover()
                yield agent
        except (AgentRunningError, StateNotWritableError) as error:
            # Which root, and where the configuration is: that stays when the state goes elsewhere.
            error.add_facts(config=self.file, root=self.root)
            raise

    def show(self, agent: Agent) -> dict[str, Any]:
        """Print the agent's status, and return it."""
        row = status_row(agent, self.places)
        emit(self.as_json, row if self.as_json else row | {"certificates": told(row["certificates"])})
        return row

    def do(self, work: Callable[[Agent], Coroutine[Any, Any, object]]) -> None:
        """Work as the agent, alone, and show its status; a failure is remembered for `status`."""
        with self.working() as agent:
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
