"""Verify a whole manifest: in order, by all cores where it is long, in memory that grows by 24 bytes a chip.

By processes and not threads: the library verifies without holding the interpreter, but so little is left of an entry's
work that two threads spend half as much again on handing the interpreter over.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from birthmark.manifests.errors import DuplicateEntryError, ManifestError
from birthmark.manifests.marks import Marks
from birthmark.manifests.microchip import Trust, Verifier
from birthmark.manifests.model import Entry, Judge
from birthmark.manifests.splitting import Piece, pieces_of

Verdict: TypeAlias = Entry | ManifestError
_Told: TypeAlias = tuple[type[ManifestError], dict[str, str]] | tuple[Any, ...]
"""What goes from process to process: an error's class and facts, or the fields of an `Entry`."""

_FEW = 16
"""So many pieces (4 MiB, a thousand chips) are verified sooner than another process is there."""
_AHEAD = 3


def verify_all(file: BinaryIO, trust: Trust, judge: Judge | None = None) -> Iterator[Verdict]:
    """Yield each entry verified, or what is wrong with it. Raise only where the file itself ends to be readable.

    With a `judge`, each entry has the doubts about it; that is done where the entry is verified.
    """
    once, pieces = Once(), _up_to_the_end(pieces_of(file))
    first = list(islice(pieces, _FEW))
    path = getattr(file, "name", None)
    is_long = len(first) == _FEW and isinstance(path, str) and Path(path).is_file()
    every, reader = chain(first, pieces), _Reader(Verifier(trust), judge)
    verdicts = _by_all_cores(reader, every, str(path)) if is_long else _here(reader, every)
    return map(once.check, verdicts, count(1))


def _up_to_the_end(pieces: Iterator[Piece]) -> Iterator[Piece | ManifestError]:
    """Yield last what ends the file, to be raised after all that stands before it."""
    try:
        yield from pieces
    except ManifestError as error:
        yield error


def _here(reader: "_Reader", pieces: Iterable[Piece | ManifestError]) -> Iterator[Verdict]:
    for piece in pieces:
        if isinstance(piece, ManifestError):
            raise piece
        yield from (reader.read(place, raw) for place, raw in enumerate(piece.entries(), piece.place))


def _by_all_cores(reader: "_Reader", pieces: Iterable[Piece | ManifestError], path: str) -> Iterator[Verdict]:
    workers = os.cpu_count() or 1
    running: deque[tuple[Piece, Future[list[_Told]]]] = deque()
    context = multiprocessing.get_context("spawn")  # a fork would lose this process's threads, whatever they hold
    with ProcessPoolExecutor(workers, context, _begin, (reader.verifier.trust, reader.judge, path)) as pool:
        try:
            for piece in pieces:
                if isinstance(piece, ManifestError):
                    yield from _drained(reader, running)
                    raise piece
                try:
                    running.append((piece, pool.submit(_tell, piece.place, piece.offset, len(piece.data))))
                except BrokenProcessPool:
                    running.append((piece, _lost()))
                if len(running) > workers * _AHEAD:
                    yield from _taken(reader, *running.popleft())
            yield from _drained(reader, running)
        finally:
            for _, future in running:
                future.cancel()


def _drained(reader: "_Reader", running: deque[tuple[Piece, Future[list[_Told]]]]) -> Iterator[Verdict]:
    while running:
        yield from _taken(reader, *running.popleft())


def _taken(reader: "_Reader", piece: Piece, future: Future[list[_Told]]) -> Iterator[Verdict]:
    try:
        told = future.result()
    except BrokenProcessPool:  # killed, perhaps for want of memory: what it had is done here
        yield from _here(reader, [piece])
        return
    for one in told:
        yield one[0](**one[1]) if isinstance(one[0], type) else Entry(*one)


def _lost() -> Future[list[_Told]]:
    lost: Future[list[_Told]] = Future()
    lost.set_exception(BrokenProcessPool())
    return lost


# ---- in a worker


# It is told where to read and not what: CPython 3.11 hangs when a worker dies that was sent more than a pipe holds.
_own: dict[str, Any] = {}


def _begin(trust: Trust, judge: Judge | None, path: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who reads is told, and ends the others
    _own.update(reader=_Reader(Verifier(trust), judge), file=os.open(path, os.O_RDONLY))


def _tell(place: int, offset: int, size: int) -> list[_Told]:
    data = os.pread(_own["file"], size, offset)
    return [_as_told(verdict) for verdict in _here(_own["reader"], [Piece(place, offset, data)])]


def _as_told(verdict: Verdict) -> _Told:
    if isinstance(verdict, ManifestError):
        return type(verdict), dict(verdict.facts)
    return tuple(getattr(verdict, name) for name in _FIELDS)


_FIELDS = tuple(Entry.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads entries, in this process or another."""

    verifier: Verifier
    judge: Judge | None

    def read(self, place: int, raw: bytes) -> Verdict:
        try:
            entry = self.verifier.verify(place, raw)
        except ManifestError as error:
            return error
        return entry if self.judge is None else replace(entry, doubts=self.judge(entry))


class Once:
    """Refuses a chip, and a key, that an entry before had."""

    def __init__(self) -> None:
        self._marks = Marks()

    def check(self, verdict: Verdict, place: int) -> Verdict:
        """Return the verdict, or the refusal of a second one."""
        if isinstance(verdict, ManifestError):
            return verdict
        chip = ("chip", verdict.unique_id)
        marks = (chip,) if verdict.point is None else (chip, ("key", verdict.point))
        for kind, value in marks:
            if (before := self._marks.add(kind, value, place)) is not None:
                detail = f"entry {before} has the same {kind}"
                return DuplicateEntryError(place=place, unique_id=verdict.unique_id, detail=detail)
        return verdict
