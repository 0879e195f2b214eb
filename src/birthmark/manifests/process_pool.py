"""Parallel, ordered processing of a long file's pieces on all cores, in constant memory.

Processes are used, not threads: the library verifies without holding the interpreter lock. But an entry's remaining
work is so small that switching between two threads adds half as much again.
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
"""Number of pieces (4 MiB, a thousand chips) that take less time than starting another process."""
_AHEAD = 3


@dataclass(frozen=True, slots=True)
class PoolTask(Generic[Piece, Told]):
    """Task for each piece. All but `where` is sent between processes, so functions are at module level."""

    make: Callable[..., Any]
    """Creates the worker object of `do` from `arguments`, once per process."""
    arguments: tuple[Any, ...]
    where: Callable[[Piece], tuple[int, int, tuple[Any, ...]]]
    """Returns a piece's file offset, its length, and further arguments of `do`."""
    do: Callable[..., Told]
    """Called with the worker object, the bytes of the piece, and the further arguments."""


def process_pieces(
    file: BinaryIO, pieces: Iterable[Piece | Exception], work: PoolTask[Piece, Told]
) -> Iterator[tuple[Piece, Told | None]]:
    """Yield each piece with its result from a process, or with None if the caller has to process it.

    The result is None for few pieces, for a file without a name, and on a single core. It is also None after a process
    was killed, for example for lack of memory. An exception among the pieces is raised after all pieces before it.
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
    """Return the number of cores available to this process, which a container or `taskset` may reduce."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _by_processes(
    workers: int, path: str, pieces: Iterable[Piece | Exception], work: PoolTask[Piece, Told]
) -> Iterator[tuple[Piece, Told | None]]:
    running: deque[tuple[Piece, Future[Any]]] = deque()
    context = multiprocessing.get_context("spawn")  # a fork would lose threads and leave their locks held
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


# ---- worker process


# Workers get the position, not the data: CPython 3.11 hangs when a worker dies that was sent more than a pipe holds.
_own: dict[str, Any] = {}


def _begin(path: str, make: Callable[..., Any], arguments: tuple[Any, ...], do: Callable[..., Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it, and ends the workers
    _own.update(file=os.open(path, os.O_RDONLY), made=make(*arguments), do=do)


def _do(offset: int, size: int, rest: tuple[Any, ...]) -> Any:
    return _own["do"](_own["made"], os.pread(_own["file"], size, offset), *rest)
