"""Enroll many: bounded concurrency, every outcome told and journaled as it is known, also when the run is stopped."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from queue import SimpleQueue

from birthmark.errors import BirthmarkError, ThrottledError, UnauthenticatedError, UnavailableError
from birthmark.fleet.adaptive_concurrency import PacedTarget, Says, silent
from birthmark.fleet.errors import NotAllowedError, NotTakenBackError
from birthmark.fleet.journal import Journal, JournalOutcome, NoteWriter, refused
from birthmark.fleet.target import (
    AT_ONCE,
    EnrollmentRequest,
    EnrollmentTarget,
    Note,
    TargetOutcome,
    WayBack,
    record_name,
)
from birthmark.interrupts import uninterrupted

_MOVED = "it moved here later and is retired at its former service, so no other enrollment admits it"
_ENDS = (UnavailableError, UnauthenticatedError, ThrottledError, NotAllowedError)


def enroll_all(
    target: EnrollmentTarget,
    wishes: Iterable[EnrollmentRequest],
    journal: Journal,
    tell: Callable[[JournalOutcome], None],
    *,
    update: bool,
    dry_run: bool,
    again: str = "birthmark device enroll-list FILE",
    workers: int = AT_ONCE,
    says: Says = silent,
) -> None:
    """Enroll each, and `tell` what became of it. Raise what stops everything: no answer, or refused credentials.

    Whatever ends the run, what was under way is waited for and told: nothing is done that nobody heard of.
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
                left = iter(wishes)
                while together := list(islice(left, target.most_at_once)):
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
    """What is under way. To wait for one of many costs the same however many there are, unlike `futures.wait`."""

    def __init__(self) -> None:
        self._futures: set[Future[None]] = set()
        self._finished: SimpleQueue[Future[None]] = SimpleQueue()

    def __len__(self) -> int:
        return len(self._futures)

    def add(self, future: Future[None]) -> None:
        self._futures.add(future)
        future.add_done_callback(self._finished.put)

    def finish(self, count: int) -> None:
        """Wait until so many more have ended. Raise what ended one of them."""
        for _ in range(count):
            future = self._finished.get()
            self._futures.discard(future)
            future.result()

    def cancel(self) -> None:
        for future in self._futures:
            future.cancel()


def _take(told: "SimpleQueue[JournalOutcome]", journal: Journal, tell: Callable[[JournalOutcome], None]) -> None:
    """Journal and tell what is known: none that left the queue is lost, and a full disk does not undo what was done."""
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


def take_back_all(
    target: EnrollmentTarget,
    journal: Journal,
    tell: Callable[[JournalOutcome], None],
    *,
    dry_run: bool,
    again: str = "birthmark device enroll-list FILE --undo",
    workers: int = AT_ONCE,
    says: Says = silent,
) -> None:
    """Take back what the journal's runs wrote, the latest first, and `tell` of each. Raise what stops everything.

    What came before something that is left is not tried: the journal takes what was taken back for the latest.
    """

    def one(written: tuple[str, WayBack]) -> JournalOutcome:
        device_id, way = written
        thumbprint = way.get("thumbprint") or way.get("certificate")
        try:
            if device_id in journal.moved:
                name = record_name(device_id, way)  # another device may have this one's id for its own record
                raise NotTakenBackError(device=name, target=target.description, detail=_MOVED)
            return JournalOutcome(device_id, thumbprint, target.take_back(device_id, way, dry_run=dry_run))
        except _ENDS:
            raise
        except BirthmarkError as error:
            return refused(device_id, thumbprint, error, again)

    paced, left = PacedTarget(workers, says=says), set[str]()
    with ThreadPoolExecutor(workers, thread_name_prefix="take-back") as pool, _ending(paced):
        for several in _distinct(journal.written(), 4 * workers):
            tried = [written for written in several if written[0] not in left]
            for outcome in pool.map(lambda written: paced.ask(lambda: one(written)), tried):
                with uninterrupted():
                    if outcome.refusal is not None:  # what was refused is tried again by the next
                        left.add(outcome.device_id)
                    elif not dry_run:
                        journal.add(outcome)
                    tell(outcome)


def _distinct(written: Iterable[tuple[str, WayBack]], most: int) -> Iterator[list[tuple[str, WayBack]]]:
    """Yield some at a time, none of them of one device: what was done to it later is taken back before."""
    several: dict[str, WayBack] = {}
    for device_id, way in written:
        if device_id in several or len(several) == most:
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
    """Put on record what is new, tell it, and return what has to be enrolled by itself."""
    try:
        created = target.enroll_new(together, journal.begin)
    except _ENDS:
        raise
    except BirthmarkError:  # of them all, for what is wrong with one
        return list(together)
    pairs = list(zip(together, created, strict=True))
    for wish, is_created in pairs:
        if is_created:
            told.put(JournalOutcome(wish.device_id, wish.certificate.thumbprint.hex(), TargetOutcome.CREATED))
    return [wish for wish, is_created in pairs if not is_created]


@contextmanager
def _ending(paced: PacedTarget) -> Iterator[None]:
    """Let nobody wait for a turn once it is over."""
    try:
        yield
    finally:
        paced.stop()


def _one(
    target: EnrollmentTarget, wish: EnrollmentRequest, note: Note, *, update: bool, dry_run: bool, again: str
) -> JournalOutcome:
    thumbprint = wish.certificate.thumbprint.hex()
    try:
        done = target.enroll(wish, note, update=update, dry_run=dry_run)
        return JournalOutcome(wish.device_id, thumbprint, done.done, difference=done.difference)
    except _ENDS:
        raise
    except BirthmarkError as error:
        return refused(wish.device_id, thumbprint, error, again)
