"""A run over a shipment that is killed again and again, its target thrown away between, ends like an undisturbed one.

`disturbed` plays it and tells what is different then: `scripts/soak enroll`.
"""

import contextlib
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.kills.power_cuts import Disk, a_disk
from support.server.servers import BIRTHMARK, RunningServer, a_server, clean_environment


@dataclass(frozen=True)
class Told:
    """What there was at the end."""

    cloud: str
    rows: int
    kills: int
    seconds_undisturbed: float
    missing: int
    """Records that an undisturbed run has, and this one has not."""
    more: int
    """And the other way round: something was made twice."""
    left: int
    """Records that are still there when the run was taken back."""

    @property
    def is_good(self) -> bool:
        return not (self.missing or self.more or self.left)


def state_of(server: RunningServer, cloud: str) -> list[tuple[str, ...]]:
    """Return everything a run makes: records with their certificates, and at AWS each registered certificate."""
    records = [
        (row["name"], row["thumbprint"] or "", row["detail"]) for row in server.rows("device", "ls", "--to", cloud)
    ]
    found: list[tuple[str, ...]] = [*records]
    if cloud == "aws":
        found += [(row["certificate"], row["status"]) for row in server.rows("aws", "certificate", "ls")]
    return sorted(found)


def shipment(directory: Path, count: int) -> tuple[str, ...]:
    """Make a shipment; return how it is enrolled."""
    at = directory / "shipment"
    maker = RunningServer(directory / "none", "127.0.0.1")
    maker.run("manifest", "create", "--out", str(at), "--count", str(count))
    trust = ("--signer", str(at / "signer.pem"), "--trust-root", str(at / "root.pem"))
    return ("device", "enroll-list", str(at / "manifest.json"), *trust)


def disturbed(directory: Path, cloud: str, count: int, kills: int, seed: int, *, cuts_power: bool = False) -> Told:
    """Enroll undisturbed at one server and disturbed at others, of which the first is thrown away half way.

    With each kill, the power of the disk that has the journals may be cut, too.
    """
    with a_disk(directory / "journals") if cuts_power else contextlib.nullcontext() as disk:
        return _disturbed(directory, cloud, count, kills, dice=random.Random(seed), disk=disk)


def _disturbed(directory: Path, cloud: str, count: int, kills: int, *, dice: random.Random, disk: Disk | None) -> Told:
    journals, line = directory if disk is None else disk.place, (*shipment(directory, count), "--to", cloud)

    def kill(running: "subprocess.Popen[bytes]") -> None:
        time.sleep(dice.uniform(0.3, took))
        running.kill()
        running.wait()
        if disk is not None:
            disk.cut(None, dice, lambda: None)

    with a_server(_made(directory / "calm")) as calm:
        began = time.monotonic()
        _run(calm, line)
        took = time.monotonic() - began
        wanted = state_of(calm, cloud)
    with a_server(_made(directory / "lost")) as lost:
        _killed(lost, (*line, "--journal", str(journals / "lost.journal")), kills // 2, kill)
    with a_server(_made(directory / "kept")) as kept:
        journal = ("--journal", str(journals / "kept.journal"))
        _killed(kept, (*line, *journal), kills - kills // 2, kill)
        _run(kept, (*line, *journal))
        found = state_of(kept, cloud)
        _run(kept, (*line, *journal, "--undo"))
        left = len(state_of(kept, cloud))
    missing, more = _without(wanted, found), _without(found, wanted)
    return Told(cloud, count, kills, round(took, 1), missing, more, left)


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def _without(some: Sequence[tuple[str, ...]], others: Sequence[tuple[str, ...]]) -> int:
    return (Counter(some) - Counter(others)).total()


def _killed(
    server: RunningServer, line: Sequence[str], kills: int, kill: "Callable[[subprocess.Popen[bytes]], None]"
) -> None:
    """Kill the run at moments all over the time that one takes; each goes on where the one before was."""
    for _ in range(kills):
        with _started(server, line) as running:
            kill(running)


def _run(server: RunningServer, line: Sequence[str]) -> None:
    with _started(server, line) as running:
        code = running.wait()
    assert code == 0, f"{' '.join(line)}: exit {code}"


def _started(server: RunningServer, line: Sequence[str]) -> "subprocess.Popen[bytes]":
    environment = clean_environment(BIRTHMARK_DATA=str(server.data), HOME=str(server.data.parent))
    return subprocess.Popen([BIRTHMARK, *line], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
