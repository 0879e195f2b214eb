"""Bulk enrollment: bounded concurrency, with outcomes reported and journaled at once, also when interrupted."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from queue import SimpleQueue

from birthmark.errors import BirthmarkError, ThrottledError, UnauthenticatedError, UnavailableError
from birthmark.fleet.adaptive_concurrency import PacedTarget, Says, silent
from birthmark.fleet.enrollment_rollback_journal import Journal, JournalOutcome, NoteWriter, refused
from birthmark.fleet.enrollment_target import (
    AT_ONCE,
    EnrollmentRequest,
    EnrollmentTarget,
    Note,
    TargetOutcome,
    WayBack,
    record_name,
)
from birthmark.fleet.errors import NotAllowedError, NotTakenBackError
from birthmark.sigint_delay import uninterrupted

_MOVED = "it moved here later and is retired at its former service, so no other enrollment admits it"
_ENDS = (UnavailableError, UnauthenticatedError, ThrottledError, NotAllowedError)


def enroll_all(
    target: EnrollmentTarget,
    requests: Iterable[EnrollmentRequest],
    journal: Journal,
    tell: Callable[[JournalOutcome], None],
    *,
    update: bool,
    dry_run: bool,
    again: str = "birthmark device enroll-list FILE",
    workers: int = AT_ONCE,
    says: Says = silent,
) -> None:
    """Enroll each device, and report the outcome by `tell`. Raise errors that end the run.

    These are a missing response and rejected credentials. At the end of the run, requests in flight are awaited and
    reported, so that no change is unreported.
    """
    told: SimpleQueue[JournalOutcome] = SimpleQueue()
    paced = PacedTarget(workers, says=says)

    def some(together: Sequence[EnrollmentRequest]) -> None:
        alone = together
        if len(together) > 1 and not dry_run:
            alone = paced.ask(lambda: _created(target, together, told, journal))
        for wish in alone:
            note = NoteWriter(journal.begin)
            one = partial(_one, target, wish, note, update=update, dry_run=dry_run, again=again)
            told.put(paced.ask(one, partial(note.may_repeat, target)))

    take = partial(_take, told, journal, tell)
    running = _RunningTasks()
    try:
        with ThreadPoolExecutor(workers, thread_name_prefix="enroll") as pool:
            try:
                left = iter(requests)
                while together := list(islice(left, target.max_batch_size)):
                    running.add(pool.submit(some, together))
                    if len(running) >= 4 * workers:
                        running.finish(workers)
                        take()
                while running:
                    running.finish(1)
                    take()
            finally:
                paced.stop()
                running.cancel()
    finally:
        take()


class _RunningTasks:
    """Tasks in flight. Unlike in `futures.wait`, waiting for any one costs the same for any number of tasks."""

    def __init__(self) -> None:
        self._futures: set[Future[None]] = set()
        self._finished: SimpleQueue[Future[None]] = SimpleQueue()

    def __len__(self) -> int:
        return len(self._futures)

    def add(self, future: Future[None]) -> None:
        self._futures.add(future)
        future.add_done_callback(self._finished.put)

    def finish(self, count: int) -> None:
        """Wait until `count` more tasks have ended. Raise the error of a task."""
        for _ in range(count):
            future = self._finished.get()
            self._futures.discard(future)
            future.result()

    def cancel(self) -> None:
        for future in self._futures:
            future.cancel()


def _take(told: "SimpleQueue[JournalOutcome]", journal: Journal, tell: Callable[[JournalOutcome], None]) -> None:
    """Journal and report the known outcomes; a full disk loses none that left the queue."""
    problem: OSError | None = None
    with uninterrupted():
        while not told.empty():
            outcome = told.get()
            for keep in (journal.add, tell):
                try:
                    keep(outcome)
                except OSError as error:
                    problem = problem or error
    if problem is not None:
        raise problem


def undo_all(
    target: EnrollmentTarget,
    journal: Journal,
    tell: Callable[[JournalOutcome], None],
    *,
    dry_run: bool,
    again: str = "birthmark device enroll-list FILE --undo",
    workers: int = AT_ONCE,
    says: Says = silent,
) -> None:
    """Undo the journal's writes, latest first, and report each by `tell`. Raise errors that end the run.

    Earlier writes to a device that is skipped are not undone, because the journal attributes an undo to the latest
    write.
    """

    def one(written: tuple[str, WayBack]) -> JournalOutcome:
        device_id, way = written
        thumbprint = way.get("thumbprint") or way.get("certificate")
        try:
            if device_id in journal.moved:
                name = record_name(device_id, way)  # another device's own record may have this ID
                raise NotTakenBackError(device=name, target=target.description, detail=_MOVED)
            return JournalOutcome(device_id, thumbprint, target.undo_enrollment(device_id, way, dry_run=dry_run))
        except _ENDS:
            raise
        except BirthmarkError as error:
            return refused(device_id, thumbprint, error, again)

    paced, left = PacedTarget(workers, says=says), set[str]()
    with ThreadPoolExecutor(workers, thread_name_prefix="take-back") as pool, _ending(paced):
        for several in _distinct(journal.list_undoable_writes(), 4 * workers):
            tried = [written for written in several if written[0] not in left]
            for outcome in pool.map(lambda written: paced.ask(lambda: one(written)), tried):
                with uninterrupted():
                    if outcome.refusal is not None:  # the next attempt retries refusals
                        left.add(outcome.device_id)
                    elif not dry_run:
                        journal.add(outcome)
                    tell(outcome)


def _distinct(written: Iterable[tuple[str, WayBack]], limit: int) -> Iterator[list[tuple[str, WayBack]]]:
    """Yield batches with at most one entry per device, because later changes must be undone first."""
    several: dict[str, WayBack] = {}
    for device_id, way in written:
        if device_id in several or len(several) == limit:
            yield list(several.items())
            several = {}
        several[device_id] = way
    if several:
        yield list(several.items())


def _created(
    target: EnrollmentTarget,
    together: Sequence[EnrollmentRequest],
    told: "SimpleQueue[JournalOutcome]",
    journal: Journal,
) -> list[EnrollmentRequest]:
    """Create and report new records, and return those that must be enrolled individually."""
    try:
        created = target.enroll_new(together, journal.begin)
    except _ENDS:
        raise
    except BirthmarkError:  # one invalid item fails all
        return list(together)
    pairs = list(zip(together, created, strict=True))
    for wish, is_created in pairs:
        if is_created:
            told.put(JournalOutcome(wish.device_id, wish.certificate.thumbprint.hex(), TargetOutcome.CREATED))
    return [wish for wish, is_created in pairs if not is_created]


@contextmanager
def _ending(paced: PacedTarget) -> Iterator[None]:
    """Stop waits for a retry at the end of the block."""
    try:
        yield
    finally:
        paced.stop()


def _one(
    target: EnrollmentTarget, request: EnrollmentRequest, note: Note, *, update: bool, dry_run: bool, again: str
) -> JournalOutcome:
    thumbprint = request.certificate.thumbprint.hex()
    try:
        done = target.enroll(request, note, update=update, dry_run=dry_run)
        return JournalOutcome(request.device_id, thumbprint, done.done, difference=done.difference)
    except _ENDS:
        raise
    except BirthmarkError as error:
        return refused(request.device_id, thumbprint, error, again)
