"""Progress of a run: a live table for terminals, and periodic lines for logs."""

from collections.abc import Mapping
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from birthmark.swarm.model import SwarmState
from birthmark.swarm.run_metrics import RunMetrics
from birthmark.swarm.scenario.model import Scenario

_MOST_ERRORS = 6
_SPARKS = " ▁▂▃▄▅▆▇█"
_SPARK_POINTS = 60


class Dashboard:
    """The live display, a context manager; it draws nothing without a terminal."""

    def __init__(self, scenario: Scenario, console: Console) -> None:
        self._scenario = scenario
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, counting: RunMetrics, now: float) -> None:
        """Draw the current state."""
        self._live.update(self._drawn(counting, now), refresh=True)

    def _drawn(self, counting: RunMetrics, now: float) -> Group:
        scenario = self._scenario
        head = (
            f"{scenario.title}: {scenario.count} devices, {now:.0f} of {scenario.duration_s:.0f} s  (press Ctrl-C to "
            "stop)"
        )
        states = Table("state", "devices", box=None, padding=(0, 2))
        for state in SwarmState:
            if counting.states[state]:
                states.add_row(state.value, str(counting.states[state]))
        took = Table("", "count", "p50 ms", "p99 ms", box=None, padding=(0, 2))
        for what, row in counting.spread().items():
            took.add_row(what, *(str(row[name]) for name in ("count", "p50_ms", "p99_ms")))
        errors = Table("error", "times", "the first", box=None, padding=(0, 2))
        for code, times in counting.errors.most_common(_MOST_ERRORS):
            errors.add_row(code, str(times), Text(counting.causes.get(code, ""), overflow="ellipsis", no_wrap=True))
        curve = Text(f"connected {sparks([point['connected'] for point in counting.timeline])}", style="green")
        parts: list[RenderableType] = [Text(head, style="bold"), curve, Text(line_of(counting, now)), states, took]
        return Group(*parts, errors) if counting.errors else Group(*parts)


def line_of(counting: RunMetrics, now: float) -> str:
    """Return the current state as one line."""
    point: Mapping[str, float] = counting.timeline[-1] if counting.timeline else {}
    errors = sum(counting.errors.values())
    return (
        f"{now:5.0f} s  connected {counting.standing}  away {int(point.get('away', 0))}  "
        f"messages/s {point.get('acknowledged_per_s', 0):g}  connects/s {point.get('connects_per_s', 0):g}  "
        f"errors {errors}"
    )


def progress_of(counting: RunMetrics, now: float) -> dict[str, Any]:
    """Return the current state as an event for programs."""
    states = {state.value: count for state, count in counting.states.items() if count}
    return {
        "event": "progress",
        "seconds": round(now, 1),
        "states": states,
        "messages": counting.totals["publish"],
        "errors": dict(counting.errors),
    }


def sparks(values: list[float]) -> str:
    """Return a sparkline of the last values in block characters."""
    shown = values[-_SPARK_POINTS:]
    most = max(shown, default=0) or 1
    return "".join(_SPARKS[round((len(_SPARKS) - 1) * value / most)] for value in shown)
