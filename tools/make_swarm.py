"""Write docs/reference/swarm.md from the table of a scenario's keys.

python tools/make_swarm.py
"""

from pathlib import Path

import birthmark
from birthmark.agent.config.setting_catalog import SettingSection
from birthmark.swarm.scenario.setting_catalog import SECTIONS

TARGET = Path(birthmark.__file__).parents[2] / "docs" / "reference" / "swarm.md"
HEAD = """# Swarm scenario reference

`birthmark swarm run FILE` reads a scenario in TOML. `birthmark swarm init FILE` writes one with every key. Only
`[group.NAME]` with `devices` is required. An unknown key is an error: the command reports its line and a suggestion
before it creates anything. For instructions, see [Simulate a fleet](../howto/swarm.md).

| value | examples |
|---|---|
| time | `"500ms"`, `"10s"`, `"5m"`, `"1h"`, `"30d"`, or a number of seconds |
| share | `"5%"` or `0.05`; any share above zero is at least one device |

`tools/make_swarm.py` generates this page.
"""
TAIL = """
## Result

| device | passes if |
|---|---|
| with a fault, expected `stopped` | the target rejects it or closes the connection within `patience` |
| with a fault, expected `tolerated` | the target accepts it |
| other, during the run | it connected, and one of its messages (if any) was acknowledged |
| other, at the end | it is connected, disconnected intentionally, or missing for less than `patience` |

The exit code is 0 if all devices pass, and 1 otherwise.

After an error, a device retries without limit. It waits for a random time below 1 s, 2 s, 4 s … 60 s (full jitter).
A device that the hub rejects registers again.

## JSON output and reports

With `--json`, each line on standard output is an object:

| line | content |
|---|---|
| every five seconds | `{"event": "progress", "seconds", "states", "messages", "errors"}` |
| at the end | `{"event": "summary", …}` with the report's `summary` |

A JSON report has `format` (`birthmark-swarm/1`), `summary`, `timeline` (at most 600 points) and `devices`. A CSV report
is the table of devices.

| device state | meaning |
|---|---|
| `waiting` | not started yet, because of `ramp` |
| `registering`, `assigned` | registration in progress, registered |
| `connected` | connected |
| `sending` | a message is not acknowledged yet |
| `renewing` | certificate renewal in progress |
| `refused` | rejected by the target |
| `away` | disconnected |
| `done` | finished |
"""


def table_of(section: SettingSection) -> str:
    """Return one section."""
    (table,) = section.tables
    place = f"`[{table}]`\n\n" if table else ""
    rows = "".join(f"| `{one.key}` | {one.takes} | {one.default} | {one.means} |\n" for one in section.settings)
    return f"\n## {section.title}\n\n{place}| key | type | default | description |\n|---|---|---|---|\n{rows}"


def page() -> str:
    """Return the page."""
    return HEAD + "".join(table_of(section) for section in SECTIONS) + TAIL


if __name__ == "__main__":
    TARGET.write_text(page())
    print(f"{sum(len(section.settings) for section in SECTIONS)} keys")
