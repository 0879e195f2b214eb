"""An agent on one device: its configuration, its root, and its commands."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from birthmark.agent.state_directory import AgentPaths
from support.server.servers import BIRTHMARK, RunningServer, clean_environment


@dataclass
class AgentOnDevice:
    """One device: its configuration and its root."""

    server: RunningServer
    root: Path
    name: str
    trusted: Path | None = None
    """Whom it trusts; the server's bundle as it is when it is None."""

    @property
    def config(self) -> Path:
        return AgentPaths(self.root).config

    @property
    def environment(self) -> dict[str, str]:
        return {"SSL_CERT_FILE": str(self.trusted or self.server.endpoints["trust_bundle"])}

    def configure(self, change: Callable[[str], str] = str) -> "AgentOnDevice":
        text = self.server.run("env", "--format", "aziot", "--registration-id", self.name).stdout
        self.config.parent.mkdir(parents=True)
        self.config.write_text(change(text))
        return self

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.server.run("agent", *arguments, "--root", str(self.root), **self.environment)

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.server.attempt("agent", *arguments, "--root", str(self.root), **self.environment)

    def row(self, *arguments: str) -> dict[str, Any]:
        (line,) = self.run(*arguments, "--json").stdout.splitlines()
        return dict(json.loads(line))

    def start(self, **environment: str) -> "subprocess.Popen[str]":
        command = [BIRTHMARK, "agent", "run", "--root", str(self.root), "--json", "--telemetry", "1"]
        whole = clean_environment(HOME=str(self.root), **self.environment, **environment)
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=whole)

    def thumbprint_at_hub(self) -> str | None:
        rows = [row for row in self.server.rows("hub", "device", "ls") if row["device"] == self.name]
        return str(rows[0]["thumbprint"]).lower() if rows else None


def until(process: "subprocess.Popen[str]", event: str) -> dict[str, Any]:
    """Return the next event of this name that the running agent tells."""
    assert process.stdout is not None
    for line in process.stdout:
        told = json.loads(line)
        if told["event"] == event:
            return dict(told)
    raise AssertionError(f"the agent ended before it told {event}")
