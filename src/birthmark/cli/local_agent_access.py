"""Location of an agent, opened read-only or for work; without the CLI library, for `agent_process`."""

import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from birthmark.agent.agent_factory import open_agent
from birthmark.agent.config import (
    AgentConfig,
    ConfigInvalidError,
    ConfigMissingError,
    ConfigUnsupportedError,
    read_config,
)
from birthmark.agent.identity_lifecycle import Agent
from birthmark.agent.running_instance import AgentRunningError, locked
from birthmark.agent.state import recall
from birthmark.agent.state_directory import AgentPaths, StateNotWritableError
from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.device_transports.transport_selection import open_links
from birthmark.untrusted_json_and_text import printable


@dataclass(frozen=True, slots=True)
class AgentLocation:
    """Root directory and configuration file of an agent."""

    root: Path
    file: Path

    @property
    def places(self) -> AgentPaths:
        return AgentPaths(self.root)

    def read(self, *, takes_last_good: bool = False) -> tuple[AgentConfig, str | None]:
        """Return the configuration, or the last good one with the reason. Raise the configuration errors."""
        try:
            return read_config(self.file), None
        except (ConfigInvalidError, ConfigUnsupportedError, ConfigMissingError) as error:
            found = recall(self.places, self.file) if takes_last_good else None
            if found is None:
                raise
            config, at = found
            return config, f"the last good one, of {at:%Y-%m-%d %H:%M} UTC, is in use. {error.explain_cause()}"

    @contextmanager
    def opened(self, *, takes_last_good: bool = False, is_looking: bool = True) -> Iterator[Agent]:
        """Open the agent to read it; nothing is written before the lock is taken."""
        config, instead = self.read(takes_last_good=takes_last_good)
        agent = open_agent(
            config,
            self.places,
            make_links=lambda identity, trust: open_links(identity, trust, SystemClock()),
            environment=os.environ,
            clock=SystemClock(),
            entropy=SystemEntropy(),
            is_looking=is_looking,
        )
        agent.instead_of_config = instead
        with closing(agent.identities.keys):
            yield agent

    @contextmanager
    def working(self, *, takes_last_good: bool = False) -> Iterator[Agent]:
        """Open the agent for work under its lock."""
        self.read(takes_last_good=takes_last_good)  # report configuration errors before any creation
        try:
            self.places.prepare()
            opened = self.opened(takes_last_good=takes_last_good, is_looking=False)
            with locked(self.places.lock), opened as agent:
                for warning in agent.config.warnings:
                    told = f"{warning.file or agent.config.file}:{warning.line}: {warning.key} {warning.detail}"
                    sys.stderr.write(f"{printable(told)}\n")
                if agent.instead_of_config is not None:
                    told = f"{self.file} cannot be used: {agent.instead_of_config}"
                    sys.stderr.write(f"{printable(told)}\n")
                agent.keeper.recover()
                yield agent
        except (AgentRunningError, StateNotWritableError) as error:
            # Names the root and the configuration file, which stays if the state moves elsewhere.
            error.add_facts(config=self.file, root=self.root)
            raise
