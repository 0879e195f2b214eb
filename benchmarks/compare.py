"""Two revisions in turn, in one run on one core: each installed with byte code in an environment of its own.

Each pair is a round of both, the first of them changing from pair to pair. What counts is the median of the pairs'
ratios, with its quartiles: noise that lasts longer than a pair hits both.
"""

import contextlib
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

HERE = Path(__file__).parent
TOP = HERE.parent
KEPT = TOP / "build" / "bench"


class Round(NamedTuple):
    """What one round cost a revision, and its peer."""

    ours: float
    peer: float


class Side:
    """A revision that is measured, in a process that keeps its servers."""

    def __init__(self, checkout: Path, process: "subprocess.Popen[str]") -> None:
        self.checkout = checkout
        self._questions, self._answers = _pipes(process)

    def round(self, name: str) -> Round | None:
        """Measure once; None where the revision has no such measure."""
        self._questions.write(f"{name}\n")
        self._questions.flush()
        if not (line := self._answers.readline()):
            raise SystemExit(f"{self.checkout.name} ended in {name}; what it says is above")
        sample = json.loads(line)
        return None if sample is None else Round(*sample)


def _pipes(process: "subprocess.Popen[str]") -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def compare(revision: str, names: Sequence[str], pairs: int) -> None:
    """Print what HEAD costs beside another revision."""
    before, after = commit_of(revision), commit_of("HEAD")
    if _git("status", "--porcelain", "--untracked-files=no"):
        print("Uncommitted changes are not measured.", file=sys.stderr)
    with contextlib.ExitStack() as ends:
        old, new = (ends.enter_context(a_side(installed(commit))) for commit in (before, after))
        title = f"new/old, lower is better ({pairs} pairs: median [quartiles])"
        print(f"old {before[:12]} ({revision}), new {after[:12]}\n{'':5} {'old':>10} {'new':>10}  {title:60}  new/peer")
        for name in names:
            rounds = [_pair(name, old, new, is_new_first=bool(number % 2)) for number in range(pairs + 1)][1:]
            found = [(one, other) for one, other in rounds if other is not None]
            print(line_of(name, found) if found else f"{name:5} is not in the new revision", flush=True)


def _pair(name: str, old: Side, new: Side, *, is_new_first: bool) -> tuple[Round | None, Round | None]:
    if is_new_first:
        later = new.round(name)
        return old.round(name), later
    return old.round(name), new.round(name)


def line_of(name: str, found: Sequence[tuple[Round | None, Round]]) -> str:
    """Return a row: medians of both, of their ratio, and of the ratio to the peer, with quartiles."""
    both = [(old.ours, new.ours) for old, new in found if old is not None]
    new = statistics.median(new.ours for _, new in found)
    old = f"{statistics.median(old for old, _ in both):10.1f}" if both else f"{'none':>10}"
    ratio = _quartiles([new / old for old, new in both]) if both else "not in the old revision"
    return f"{name:5} {old} {new:10.1f}  {ratio:60}  {_quartiles([new.ours / new.peer for _, new in found])}"


def _quartiles(ratios: Sequence[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    return f"{middle:5.3f} [{low:.3f}, {high:.3f}]"


def commit_of(revision: str) -> str:
    """Return the commit that a revision names."""
    try:
        return _git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"This clone has no revision {revision}: name a commit, or fetch tags") from error


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=TOP, check=True, capture_output=True, text=True).stdout.strip()


def installed(commit: str) -> Path:
    """Return a checkout of a commit that is installed, as users install it; it is kept for the next comparison."""
    checkout = KEPT / commit[:12]
    python, stamp = checkout / ".venv" / "bin" / "python", checkout / ".installed"
    if stamp.exists():
        return checkout
    print(f"Installing {commit[:12]} (about a minute, once)", file=sys.stderr)
    shutil.rmtree(checkout, ignore_errors=True)
    checkout.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", commit], cwd=TOP, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(checkout)], input=archive, check=True)
    subprocess.run(["/usr/bin/python3", "-m", "venv", str(checkout / ".venv")], check=True)
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, "pip>=25,<27"], check=True)
    subprocess.run([*pip, "--require-hashes", "-r", str(checkout / "requirements.lock")], check=True)
    subprocess.run([*pip, "--no-deps", "--compile", str(checkout)], check=True)
    (checkout / "benchmarks" / ".venv").symlink_to(HERE / ".venv")
    stamp.touch()
    return checkout


@contextlib.contextmanager
def a_side(checkout: Path) -> Iterator[Side]:
    """Run a revision's side; it ends with its input."""
    line = [str(checkout / ".venv" / "bin" / "python"), str(HERE / "side.py"), str(checkout)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=checkout) as process:
        yield Side(checkout, process)
        _pipes(process)[0].close()
