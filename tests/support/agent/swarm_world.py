"""Runs of `birthmark swarm` as people make them, and what they report."""

import json
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.server.servers import BIRTHMARK, clean_environment


@dataclass(frozen=True)
class SwarmRun:
    """How it ended."""

    code: int
    events: list[dict[str, Any]]
    report: Mapping[str, Any]
    stderr: str

    @property
    def summary(self) -> Mapping[str, Any]:
        return dict(self.report["summary"])

    @property
    def devices(self) -> list[dict[str, Any]]:
        return list(self.report["devices"])

    @property
    def by_fault(self) -> dict[str, str]:
        """What came of each misbehavior."""
        return {one["fault"]: one["verdict"] for one in self.devices if one["fault"]}


def swarm(
    directory: Path,
    *words: str,
    scenario: str = "",
    during: Callable[["subprocess.Popen[str]"], None] | None = None,
    until: Callable[[Mapping[str, Any]], bool] | None = None,
    environment: Mapping[str, str] | None = None,
) -> SwarmRun:
    """Run a scenario, or what `words` say; call `during` when a device is connected, press Ctrl-C once `until` is."""
    file, report = directory / "swarm.toml", directory / "report.json"
    report.unlink(missing_ok=True)
    given = list(words)
    if scenario:
        file.write_text(scenario)
        given.insert(0, str(file))
    known = {"HOME": str(directory), "BIRTHMARK_DATA": str(directory / "data"), **(environment or {})}
    command = [BIRTHMARK, "swarm", "run", *given, "--json", "--report", str(report)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=directory, env=clean_environment(**known), text=True, **pipes) as process:  # type: ignore[call-overload]  # a table of its arguments
        assert process.stdout is not None
        assert process.stderr is not None
        events = []
        for line in process.stdout:
            events.append(json.loads(line))
            if during is not None and standing(events[-1]):
                during(process)
                during = None
            elif until is not None and until(events[-1]):
                interrupt(process)
                until = None
        stderr = process.stderr.read()
        code = process.wait(60)
    return SwarmRun(code, events, json.loads(report.read_text()) if report.exists() else {}, stderr)


def standing(event: Mapping[str, Any]) -> int:
    return sum(event["states"].get(state, 0) for state in ("connected", "sending"))


def interrupt(process: "subprocess.Popen[str]") -> None:
    """Press Ctrl-C."""
    process.send_signal(signal.SIGINT)
