"""Write the tables of docs/explanation/capacity.md from benchmarks/results/scaled.json.

python tools/make_capacity.py
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import birthmark

HOME = Path(birthmark.__file__).parents[2]
PAGE, FIGURES = HOME / "docs" / "explanation" / "capacity.md", HOME / "benchmarks" / "results" / "scaled.json"
DAY_S = 86_400
IDLE_KIB = 38
"""Of a connection (P7)."""
MESSAGE_BYTES = 90
"""A message of 80 bytes, and what is kept with it, before PostgreSQL compresses those that are alike."""
BUSY = 0.6
"""How much of a core is used at most, so that what comes together does not wait."""
TITLES = {
    "P2": "DPS registration with an enrollment group",
    "P3": "IoT Hub connection",
    "P4": "message, one at a time",
    "P5": "message, ten at a time",
    "P8": "EST renewal",
}


@dataclass(frozen=True)
class Fleet:
    """What each device does: messages a day, connections a day, renewals a year; and how many are connected at once."""

    name: str
    devices: int
    messages: float
    connections: float
    renewals: float
    connected: float


FLEETS = (
    Fleet("10,000 gateways, one message every 10 s", 10_000, DAY_S / 10, 1, 12, 1.0),
    Fleet("100,000 machines, one message per minute", 100_000, 1_440, 2, 12, 1.0),
    Fleet("1,000,000 meters, one message per hour, always connected", 1_000_000, 24, 1, 4, 1.0),
    Fleet("1,000,000 meters, one connection per hour", 1_000_000, 24, 24, 4, 0.01),
    Fleet("10,000,000 sensors, one connection per day", 10_000_000, 4, 1, 1, 0.001),
)


def per_second(fleet: Fleet) -> Mapping[str, float]:
    """Return operations a second, by measure."""
    each_day = {"P4": fleet.messages, "P3": fleet.connections, "P8": fleet.renewals / 365}
    return {name: count * fleet.devices / DAY_S for name, count in each_day.items()}


def cores(fleet: Fleet, figures: Mapping[str, Mapping[str, float]], part: str) -> float:
    """Return how many cores of the workers, or of PostgreSQL, a fleet keeps busy."""
    return sum(count * figures[name][part] for name, count in per_second(fleet).items()) / 1e6


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)


def costs(rows: Sequence[Mapping[str, object]]) -> str:
    """Return what each operation costs."""

    def of(row: Mapping[str, object], name: str, part: str) -> float:
        found = row[name]
        assert isinstance(found, dict)
        return float(found[part])

    shown = [
        [
            f"{row['measure']} {TITLES[str(row['measure'])]}",
            *(f"{of(row, name, 'workers'):,.0f}" for name in ("alone", "one", "two")),
            *(f"{of(row, 'two', part):,.0f}" for part in ("postgres", "nats")),
            f"{row['cost']:.2f}",
            f"{row['capacity']:.2f}",
            f"{1e6 * BUSY / of(row, 'two', 'workers'):,.0f}",
        ]
        for row in rows
    ]
    head = [
        "operation",
        "standalone",
        "1 worker",
        "2 workers",
        "PostgreSQL",
        "NATS",
        "cost ratio",
        "capacity ratio",
        "per second and worker",
    ]
    return table(head, shown)


def fleets(figures: Mapping[str, Mapping[str, float]]) -> str:
    """Return what fleets ask for."""
    shown = []
    for fleet in FLEETS:
        asked = per_second(fleet)
        workers, postgres = cores(fleet, figures, "workers"), cores(fleet, figures, "postgres")
        shown.append(
            [
                fleet.name,
                f"{asked['P4']:,.0f}",
                f"{asked['P3']:,.1f}",
                f"{asked['P8']:,.1f}",
                f"{max(1, workers / BUSY):,.0f}",
                f"{max(1, postgres / BUSY):,.0f}",
                f"{fleet.devices * fleet.connected * IDLE_KIB / 1024**2:,.1f} GiB",
                f"{fleet.devices * fleet.messages * MESSAGE_BYTES / 1024**3:,.1f} GiB",
            ]
        )
    head = [
        "fleet",
        "messages/s",
        "connections/s",
        "renewals/s",
        "workers",
        "PostgreSQL cores",
        "memory",
        "telemetry per day",
    ]
    return table(head, shown)


def page(text: str, rows: Sequence[Mapping[str, object]]) -> str:
    """Return the page with its tables as the figures are."""
    figures: dict[str, Mapping[str, float]] = {}
    for row in rows:
        two = row["two"]
        assert isinstance(two, dict)
        figures[str(row["measure"])] = two
    for mark, content in (("costs", costs(rows)), ("fleets", fleets(figures))):
        begin, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}{content}\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), json.loads(FIGURES.read_text())["rows"]))
