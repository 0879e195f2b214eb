"""Write docs/contributing/test-times.md from a run's report: how long the tests of each package take, by kind.

scripts/test --junitxml=report.xml; python tools/test_times.py report.xml
"""

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import tests_of

TARGET = tests_of.ROOT / "docs" / "contributing" / "test-times.md"
KINDS = ("unit", "contract", "integration", "conformance", "system", "others")
HEAD = """# How long the tests take

Seconds of each package's tests, added up, of a whole run in four processes on two cores; alone they take about half
of that. A test of several packages counts for each. `scripts/test PACKAGE` runs those of one package. A run with
`--junitxml=report.xml`, and then `python tools/test_times.py report.xml`, write this page.

"""


def times_of(report: Path) -> Counter[str]:
    """Return the seconds of each module of tests, by its path below tests/."""
    found: Counter[str] = Counter()
    for case in ET.parse(report).iter("testcase"):
        names = case.get("classname", "").split(".")[1:]
        while names and not (tests_of.TESTS / Path(*names)).with_suffix(".py").exists():
            names.pop()  # a class
        if names:
            found[f"{Path(*names)}.py"] += float(case.get("time", "0"))  # type: ignore[assignment]  # seconds
    return found


def by_kind(modules: Counter[str]) -> str:
    """Return a row of the table."""
    times: Counter[str] = Counter()
    for module, seconds in modules.items():
        kind = module.split("/")[0]
        times[kind if kind in KINDS else "others"] += seconds
    return " | ".join(f"{times[kind]:.0f}" if times[kind] else "" for kind in KINDS)


def main(report: str) -> None:
    every = times_of(Path(report))
    rows = [f"| package | {' | '.join(KINDS)} |", "| --- |" + " ---: |" * len(KINDS)]
    for package in tests_of.packages():
        paths = [str(one.relative_to(tests_of.TESTS)) for one in tests_of.tests_of(package)]
        mine = {name: s for name, s in every.items() if any(name == one or name.startswith(f"{one}/") for one in paths)}
        rows.append(f"| {package} | {by_kind(Counter(mine))} |")
    rows.append(f"| **all** | {by_kind(every)} |")
    TARGET.write_text(HEAD + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
