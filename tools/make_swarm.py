"""Write docs/reference/swarm.md from the table of a scenario's keys.

python tools/make_swarm.py
"""

from pathlib import Path

import birthmark
from birthmark.agent.config.catalog import SettingSection
from birthmark.swarm.scenario.settings import SECTIONS

TARGET = Path(birthmark.__file__).parents[2] / "docs" / "reference" / "swarm.md"
HEAD = """# Scenarios of a swarm

`birthmark swarm run FILE` reads a TOML file; `birthmark swarm init FILE` writes one with every key
([how](../howto/swarm.md)). Only `[group.NAME]` with `devices` is needed. A key that is not known is a mistake, told
with its line and what was meant, before anything is made.

Times are `"500ms"`, `"10s"`, `"5m"`, `"1h"`, `"30d"`, or a number of seconds; shares are `"5%"` or `0.05`, and one
that is more than nothing is at least one device. This page is written by `tools/make_swarm.py`.
"""
TAIL = """
## What is judged

A device that misbehaves holds when the target did what is expected: `stopped` is a refusal, or the end of the
connection, within `patience`. Every other device holds when it was connected, had a message acknowledged (where it sent
one), and is connected at the end, away by its own will, or missing for less than `patience`. The exit code is 0 when
all hold, else 1.

After an error a device waits for a random time below 1 s, 2 s, 4 s … 60 s (full jitter) and tries again, for ever.
One that the hub refuses registers again.

## Events

With `--json` each line on standard output is an object: `{"event": "progress", "seconds", "states", "messages",
"errors"}` every five seconds, and at the end `{"event": "summary", …}` with the report's `summary`. A report in JSON
has `format` (`birthmark-swarm/1`), `summary`, `timeline` (at most 600 points) and `devices`; the one in CSV is the
table of the devices.

A device is `waiting` for its turn in the ramp, `registering`, `assigned`, `connected`, `sending` (a message of its is
not acknowledged yet), `renewing`, `refused`, `away` or `done`.
"""


def table_of(section: SettingSection) -> str:
    """Return one section."""
    (table,) = section.tables
    place = f"`[{table}]`\n\n" if table else ""
    rows = "".join(f"| `{one.key}` | {one.takes} | {one.default} | {one.means} |\n" for one in section.settings)
    return f"\n## {section.title}\n\n{place}| key | takes | default | meaning |\n|---|---|---|---|\n{rows}"


def page() -> str:
    """Return the page."""
    return HEAD + "".join(table_of(section) for section in SECTIONS) + TAIL


if __name__ == "__main__":
    TARGET.write_text(page())
    print(f"{sum(len(section.settings) for section in SECTIONS)} keys")
