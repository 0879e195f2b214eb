"""A million chips on one list: 100 with a flipped bit are found, the others are enrolled, in memory that does not grow.

`scripts/soak million [--rows 1000000] [--flips 100] [--engine sqlite|postgresql] [--kept DIRECTORY]`; with --kept the
list is made once.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from birthmark.manifests.manifest_chunks import pieces_of
from support.server.servers import BIRTHMARK, RunningServer, a_server, clean_environment
from support.services.postgres import a_postgres_server

_SIGNED = re.compile(rb'"(payload|protected)":\s*"([^"]*)"')
_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rows", type=int, default=1_000_000)
    asked.add_argument("--flips", type=int, default=100)
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--engine", choices=("sqlite", "postgresql"), default="sqlite")
    asked.add_argument("--kept", type=Path)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory(prefix="birthmark-million-") as name:
        at = given.kept or Path(name) / "shipment"
        if not (at / "manifest.json").exists():
            run(Path(name), "manifest", "create", "--out", str(at), "--count", str(given.rows))
        trust = ["--signer", str(at / "signer.pem"), "--root", str(at / "root.pem")]
        is_good = found_flips(Path(name), at / "manifest.json", trust, given.flips, random.Random(given.seed))
        with a_postgres_server() if given.engine == "postgresql" else nullcontext() as postgres:
            config = f'database = "{postgres.url}"\n' if postgres else ""
            is_good &= enrolled(Path(name), at / "manifest.json", trust, given.rows, config)
    sys.exit(0 if is_good else 1)


def found_flips(directory: Path, manifest: Path, trust: list[str], flips: int, dice: random.Random) -> bool:
    """Flip one bit in the signed text of some entries, and see that exactly these are refused."""
    with flipped(manifest, flips, dice) as places:
        told = directory / "verified.jsonl"
        began = time.monotonic()
        peak = run(directory, "manifest", "verify", str(manifest), *trust, "--json", out=told, status=7)
        took = time.monotonic() - began
        refused: dict[int, dict[str, str]] = {}
        rows = 0
        with told.open() as lines:
            for line in lines:
                row, rows = json.loads(line), rows + 1
                if "error" in row or "code" in row:
                    refused[int(row["entry"])] = row
    reasons = {row.get("code") or row["error"] for row in refused.values()}
    said = f"{rows} entries in {took:.0f} s, {rows / took:.0f} a second, {peak} MiB at most; refused {len(refused)}"
    print(f"verify: {said}, of them flipped {len(refused.keys() & places)} of {len(places)}: {sorted(reasons)}")
    return refused.keys() == places


@contextmanager
def flipped(manifest: Path, flips: int, dice: random.Random) -> Iterator[set[int]]:
    """Flip bits in place, and back in the end; give the numbers of the entries."""
    with manifest.open("rb") as file:
        count = sum(piece.count for piece in pieces_of(file))
    places = set(dice.sample(range(1, count + 1), flips))
    at: list[tuple[int, bytes]] = []
    with manifest.open("rb") as file:
        for piece in pieces_of(file):
            if not places & set(range(piece.place, piece.place + piece.count)):
                continue
            begin = 0
            for place, entry in enumerate(piece.entries(), piece.place):
                begin = piece.data.index(entry, begin)
                if place in places:
                    signed = dice.choice(list(_SIGNED.finditer(entry)))
                    where = piece.offset + begin + dice.randrange(*signed.span(2))
                    at.append((where, bytes([1 << dice.randrange(8)])))
                begin += len(entry)
    swap(manifest, at)
    try:
        yield places
    finally:
        swap(manifest, at)


def swap(manifest: Path, at: list[tuple[int, bytes]]) -> None:
    with manifest.open("r+b") as file:
        for where, bit in at:
            file.seek(where)
            (byte,) = file.read(1)
            file.seek(where)
            file.write(bytes([byte ^ bit[0]]))


def enrolled(directory: Path, manifest: Path, trust: list[str], rows: int, config: str) -> bool:
    """Rehearse and enroll all at a local server; tell rates and memory."""
    with a_server(directory, config, is_warm=False) as server:
        return enrolled_at(server, directory, manifest, trust, rows)


def enrolled_at(server: RunningServer, directory: Path, manifest: Path, trust: list[str], rows: int) -> bool:
    environment = {"BIRTHMARK_DATA": str(server.data), "HOME": str(directory)}
    is_good = True
    for what, options in (("dry run", ["--dry-run"]), ("enroll", []), ("again", [])):
        before, began = memory_of(server), time.monotonic()
        peak = run(directory, "device", "enroll-list", str(manifest), *trust, *options, environment=environment)
        took = time.monotonic() - began
        told = (directory / "stderr").read_text().splitlines()[-1].rpartition(": ")[2]
        memory = f"{peak} MiB at most, the server {before} -> {memory_of(server)} MiB"
        print(f"{what}: {told} {took:.0f} s, {rows / took:.0f} rows a second, {memory}", flush=True)
        is_good &= told.startswith(f"{rows} ")
    return is_good


def memory_of(server: RunningServer) -> int:
    """Return the server's resident memory in MiB."""
    assert server.process is not None
    pages = int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1])
    return pages * _PAGE_KIB // 1024


def run(
    directory: Path, *words: str, out: Path | None = None, status: int = 0, environment: Mapping[str, str] | None = None
) -> int:
    """Run a command and return how much memory it and its processes had at most, in MiB."""
    with (out or directory / "stdout").open("w") as stdout, (directory / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [BIRTHMARK, *words], stdout=stdout, stderr=stderr, env=clean_environment(**(environment or {}))
        )
        peak = 0
        while process.poll() is None:
            peak = max(peak, family_memory(process.pid))
            time.sleep(0.5)
    if process.returncode != status:
        sys.exit(f"{' '.join(words)}: exit {process.returncode}\n{(directory / 'stderr').read_text()[-4000:]}")
    return peak


def family_memory(pid: int) -> int:
    """Return what a process and those below it have in memory of their own (PSS), in MiB."""
    total, left = 0, [pid]
    while left:
        one = left.pop()
        try:
            left += [int(child) for child in Path(f"/proc/{one}/task/{one}/children").read_text().split()]
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total // 1024


if __name__ == "__main__":
    main()
