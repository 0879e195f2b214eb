"""Measure the server beside its peers, in one run, and write benchmarks/results/.

    scripts/bench [NAME…] [--rounds N] [--look]
    scripts/bench [NAME…] --compare REV [--pairs N]

Rounds of all measures are interleaved; the minimum of a measure's rounds counts, the spread is beside it. `--compare`
measures HEAD and another revision in turn instead (compare.py), and writes nothing.
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

from compare import compare
from measures import ALL
from measures.measure import Measure, Sample
from peers import PeerMissingError
from plot import plot
from rig import a_rig

RESULTS = Path(__file__).parent / "results"
HOME = Path(__file__).parent.parent
PAGE = HOME / "docs/explanation/performance.md"
BUSY = 1.5
MARKS = ("<!-- benchmarks -->", "<!-- end of benchmarks -->")


def row_of(measure: Measure, samples: list[Sample]) -> dict[str, object]:
    """Return what is kept of a measure's rounds."""
    ours, peer = ([getattr(sample, side) for sample in samples] for side in Sample._fields)
    ratio = min(ours) / min(peer)
    return {
        "name": measure.name,
        "title": measure.title,
        "peer": measure.peer,
        "unit": measure.unit,
        "ours": round(min(ours), 2),
        "ours_most": round(max(ours), 2),
        "peers": round(min(peer), 2),
        "peers_most": round(max(peer), 2),
        "ratio": round(ratio, 3),
        "gate": measure.gate,
        "aim": measure.aim,
        "is_reached": ratio <= measure.gate,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {' '.join(kind.name for kind in ALL)}")
    parser.add_argument("--rounds", type=int, default=5, help="of each measure")
    parser.add_argument("--look", action="store_true", help="print the committed results too, and write none")
    parser.add_argument("--compare", metavar="REV", help="measure HEAD and this revision in turn, such as v0.3.0")
    parser.add_argument("--pairs", type=int, default=10, help="of rounds, with --compare")
    arguments = parser.parse_args()
    chosen = [kind for kind in ALL if not arguments.names or kind.name in arguments.names]
    if unknown := set(arguments.names) - {kind.name for kind in chosen}:
        parser.error(f"measure has no value {' '.join(sorted(unknown))}")
    if arguments.compare is not None:
        compare(arguments.compare, [kind.name for kind in chosen], arguments.pairs)
        return
    began, load = time.perf_counter(), os.getloadavg()[0]
    if load > BUSY:
        print(f"Others work on this machine (load {load:.1f}): costs come out too high, ours most.", file=sys.stderr)
    with a_rig() as rig:
        measures = list[Measure]()
        for kind in chosen:
            try:
                measures.append(kind(rig))
            except PeerMissingError as error:
                print(f"{kind.name} is not measured: {error}.", file=sys.stderr)
        samples: dict[str, list[Sample]] = {measure.name: [] for measure in measures}
        for number in range(arguments.rounds):
            for measure in measures:
                samples[measure.name].append(sample := measure.round())
                print(
                    f"{number + 1}/{arguments.rounds} {measure.name} {sample.ours:8.1f} {sample.peer:8.1f}",
                    file=sys.stderr,
                )
        rows = [row_of(measure, samples[measure.name]) for measure in measures]
    committed = RESULTS / "results.json"
    before = {row["name"]: row for row in json.loads(committed.read_text())["rows"]} if committed.exists() else {}
    print_table(rows, before if arguments.look else {})
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    if not arguments.look:
        kept = sorted({**before, **{row["name"]: row for row in rows}}.values(), key=lambda row: order(row["name"]))
        RESULTS.mkdir(exist_ok=True)
        about: dict[str, object] = {
            "what": "server CPU per operation, minimum of the rounds",
            "python": platform.python_version(),
        }
        about |= {"rounds": arguments.rounds, "load_at_start": round(load, 1)}
        committed.write_text(json.dumps({**about, "rows": kept}, indent=2) + "\n")
        plot(kept, RESULTS / "results.svg")
        show_in_page(kept)


def show_in_page(rows: list[dict]) -> None:
    """Put the table between its marks."""
    lines = ["| | measure | peer | ours | peer's | ratio | gate |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        ratio = f"**{row['ratio']:.2f}**" if row["is_reached"] else f"{row['ratio']:.2f}"
        sides = " | ".join(f"{row[side]:.{1 if row[side] < 100 else 0}f} {row['unit']}" for side in ("ours", "peers"))
        lines.append(f"| {row['name']} | {row['title']} | {row['peer']} | {sides} | {ratio} | {row['gate']} |")
    head, _, rest = PAGE.read_text().partition(MARKS[0])
    PAGE.write_text("\n".join([head + MARKS[0], *lines, MARKS[1] + rest.partition(MARKS[1])[2]]))


def order(name: str) -> int:
    """Return the place of a measure in the table."""
    return next((place for place, kind in enumerate(ALL) if kind.name == name), len(ALL))


def print_table(rows: list[dict], before: dict[str, dict]) -> None:
    """Print a row for each measure; `before` adds a column."""
    then = f" {'before':>8}" if before else ""
    print(f"{'':5} {'':46} {'ours':>8} {'peer':>8} {'ratio':>6} {'gate':>6} {'aim':>6}{then}")
    for row in rows:
        mark = "  " if row["is_reached"] else " !"
        then = f" {before[row['name']]['ratio']:8.2f}" if row["name"] in before else ""
        print(
            f"{row['name']:5} {row['title']:46} {row['ours']:8.1f} {row['peers']:8.1f} {row['ratio']:6.2f}{mark}"
            f"{row['gate']:5} {row['aim']:6}{then}"
        )


if __name__ == "__main__":
    main()
