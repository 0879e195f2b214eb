"""Throw mutated inputs at the parsers of untrusted bytes: `scripts/fuzz --minutes 5`, `scripts/fuzz --inputs 1000 csr`.

Input number N of a target follows from the seed, so that what was found is made again by
`scripts/fuzz --seed SEED --at N TARGET`. Not guided by coverage.
"""

import argparse
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from types import FrameType

from birthmark.amqp.errors import AmqpError
from birthmark.errors import BirthmarkError
from birthmark.mqtt.errors import ProtocolError
from fuzz.targets import TARGETS, Target

MAX_SECONDS_PER_INPUT = 2.0
MAX_GROWTH_MIB = 256
MAX_CAUSE_CHARS = 128 * 1024  # what is told never outgrows twice what was sent
_MIB_KIB = 1024


class TooSlowError(Exception):
    """One input took longer than any may."""


@dataclass
class Found:
    """An input that a parser did not answer with a documented error."""

    target: str
    seed: str
    number: int
    data: bytes = field(repr=False)
    trace: str

    def __str__(self) -> str:
        again = f"scripts/fuzz --seed {self.seed} --at {self.number} {self.target}"
        return f"{self.trace}\n{self.data[:400]!r}\n{len(self.data)} bytes; again: {again}"


@dataclass
class Result:
    """What became of a run."""

    inputs: int = 0
    taken: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    growth_mib: int = 0
    found: list[Found] = field(default_factory=list)


def today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"


def make_input(target: Target, seed: str, number: int) -> bytes:
    """Return input `number`; the first ones are the seeds as they are, which must be taken."""
    if number < len(target.seeds):
        return target.seeds[number]
    return target.mutate(Random(f"{seed}/{target.name}/{number}"), target.seeds)


def try_one(target: Target, data: bytes) -> bool:
    """Return whether the input was taken; False when it was refused as documented. Anything else comes out."""
    try:
        target.parse(data)
    except BirthmarkError as error:
        told = error.explain_cause() + error.explain_fix() + str(error)
        if len(told.encode()) > MAX_CAUSE_CHARS:  # what cannot be encoded cannot be printed
            raise AssertionError(f"{len(told)} characters are told") from error
        return False
    except (AmqpError, ProtocolError):
        return False
    return True


def run(target: Target, numbers: Iterator[int], seed: str, *, seconds: float | None = None, keep: int = 5) -> Result:
    """Try inputs until they or the time end, each seed and one more in any case, or `keep` are found."""
    result = Result()
    before = _peak_kib()
    started = time.perf_counter()
    with_alarm = signal.signal(signal.SIGALRM, _too_slow)
    try:
        for number in numbers:
            data = make_input(target, seed, number)
            begun = time.perf_counter()
            if seconds is not None and begun > started + seconds and result.inputs > len(target.seeds):
                break
            result.inputs += 1
            signal.setitimer(signal.ITIMER_REAL, MAX_SECONDS_PER_INPUT)
            try:
                result.taken += try_one(target, data)
            except Exception:  # noqa: BLE001 - whatever comes out is what we look for
                result.found.append(Found(target.name, seed, number, data, traceback.format_exc(limit=-6)))
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            result.slowest = max(result.slowest, time.perf_counter() - begun)
            if len(result.found) >= keep:
                break
    finally:
        signal.signal(signal.SIGALRM, with_alarm)
    result.seconds = time.perf_counter() - started
    result.growth_mib = (_peak_kib() - before) // _MIB_KIB
    return result


def _too_slow(_number: int, _frame: FrameType | None) -> None:
    raise TooSlowError(f"more than {MAX_SECONDS_PER_INPUT} s")


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: all of {', '.join(TARGETS)}")
    much = parser.add_mutually_exclusive_group()
    much.add_argument("--minutes", type=float, help="time for each target (default: 1)")
    much.add_argument("--inputs", type=int, help="inputs for each target")
    parser.add_argument("--seed", default=today(), help="default: the day")
    parser.add_argument("--at", type=int, help="only the input of this number")
    asked = parser.parse_args()
    if unknown := [name for name in asked.targets if name not in TARGETS]:
        parser.error(f"no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
    print(f"seed {asked.seed}", flush=True)
    bad = 0
    for name in asked.targets or TARGETS:
        if asked.at is not None:
            numbers: Iterator[int] = iter((asked.at,))
        else:
            numbers = iter(range(asked.inputs or sys.maxsize))
        minutes = None if asked.inputs or asked.at is not None else asked.minutes or 1.0
        result = run(TARGETS[name], numbers, asked.seed, seconds=None if minutes is None else 60 * minutes)
        rate = result.inputs / result.seconds if result.seconds else 0
        print(
            f"{name:24} {result.inputs:>9} inputs, {result.taken:>8} taken, {len(result.found)} found, "
            f"{rate:>7.0f}/s, slowest {1000 * result.slowest:.0f} ms, +{result.growth_mib} MiB",
            flush=True,
        )
        for found in result.found:
            print(found, flush=True)
        bad += bool(result.found) or result.growth_mib > MAX_GROWTH_MIB
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
