"""Work on the pieces of a long file by all cores, in order, in memory that does not grow with the file.

By processes and not threads: the library verifies without holding the interpreter, but so little is left of an entry's
work that two threads spend half as much again on handing the interpreter over.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

Piece = TypeVar("Piece")
Told = TypeVar("Told")

FEW = 16
"""So many pieces (4 MiB, a thousand chips) are worked on sooner than another process is there."""
_AHEAD = 3


@dataclass(frozen=True, slots=True)
class PoolTask(Generic[Piece, Told]):
    """What is done with a piece. All but `where` goes from process to process, so functions are those of a module."""

    make: Callable[..., Any]
    """Makes from `arguments`, once in each process, what `do` works with."""
    arguments: tuple[Any, ...]
    where: Callable[[Piece], tuple[int, int, tuple[Any, ...]]]
    """Tells where a piece begins in the file, how long it is, and what else `do` is told of it."""
    do: Callable[..., Told]
    """Called with what was made, the bytes of the piece, and the rest."""


def told_by_all(
    file: BinaryIO, pieces: Iterable[Piece | Exception], work: PoolTask[Piece, Told]
) -> Iterator[tuple[Piece, Told | None]]:
    """Yield each piece with what a process told of it; with None where it is for the caller to do.

    So it is with few pieces, with a file that has no name, where this process may use one core only, and when a process
    was killed, perhaps for want of memory. An exception among the pieces is raised after all that stands before it.
    """
    left = iter(pieces)
    first = list(islice(left, FEW))
    path = getattr(file, "name", None)
    is_long = len(first) == FEW and isinstance(path, str) and Path(path).is_file()
    every, workers = chain(first, left), usable_cores()
    if is_long and workers > 1:
        yield from _by_processes(workers, str(path), every, work)
        return
    for piece in every:
        if isinstance(piece, Exception):
            raise piece
        yield piece, None


def usable_cores() -> int:
    """Return how many cores this process may use, which a container or `taskset` makes fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _by_processes(
    workers: int, path: str, pieces: Iterable[Piece | Exception], work: PoolTask[Piece, Told]
) -> Iterator[tuple[Piece, Told | None]]:
    running: deque[tuple[Piece, Future[Any]]] = deque()
    context = multiprocessing.get_context("spawn")  # a fork would lose this process's threads, whatever they hold
    with ProcessPoolExecutor(workers, context, _begin, (path, work.make, work.arguments, work.do)) as pool:
        try:
            for piece in pieces:
                if isinstance(piece, Exception):
                    while running:
                        yield _taken(*running.popleft())
                    raise piece
                try:
                    running.append((piece, pool.submit(_do, *work.where(piece))))
                except BrokenProcessPool:
                    running.append((piece, _lost()))
                if len(running) > workers * _AHEAD:
                    yield _taken(*running.popleft())
            while running:
                yield _taken(*running.popleft())
        finally:
            for _, future in running:
                future.cancel()


def _taken(piece: Piece, future: Future[Told]) -> tuple[Piece, Told | None]:
    try:
        return piece, future.result()
    except BrokenProcessPool:
        return piece, None


def _lost() -> Future[Any]:
    lost: Future[Any] = Future()
    lost.set_exception(BrokenProcessPool())
    return lost


# ---- in a worker


# It is told where to read and not what: CPython 3.11 hangs when a worker dies that was sent more than a pipe holds.
_own: dict[str, Any] = {}


def _begin(path: str, make: Callable[..., Any], arguments: tuple[Any, ...], do: Callable[..., Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who reads is told, and ends the others
    _own.update(file=os.open(path, os.O_RDONLY), made=make(*arguments), do=do)


def _do(offset: int, size: int, rest: tuple[Any, ...]) -> Any:
    return _own["do"](_own["made"], os.pread(_own["file"], size, offset), *rest)
