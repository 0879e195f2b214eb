"""Enroll many: bounded concurrency, every outcome told and journaled as it is known, also when the run is stopped."""

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from queue import SimpleQueue

from birthmark.errors import BirthmarkError, ThrottledError, UnauthenticatedError, UnavailableError
from birthmark.fleet.journal import Journal, Outcome, refused
from birthmark.fleet.target import Done, EnrollmentRequest, EnrollmentTarget

_ENDS = (UnavailableError, UnauthenticatedError, ThrottledError)


def enroll_all(
    target: EnrollmentTarget,
    wishes: Iterable[EnrollmentRequest],
    journal: Journal,
    tell: Callable[[Outcome], None],
    *,
    update: bool,
    dry_run: bool,
    again: str = "birthmark enroll manifest FILE",
    workers: int = 8,
) -> None:
    """Enroll each, and `tell` what became of it. Raise what stops everything: no answer, or refused credentials.

    Whatever ends the run, what was under way is waited for and told: nothing is done that nobody heard of.
    """

    told: SimpleQueue[Outcome] = SimpleQueue()

    def some(together: Sequence[EnrollmentRequest]) -> None:
        for wish in _created(target, together, told) if len(together) > 1 and not dry_run else together:
            told.put(_one(target, wish, update=update, dry_run=dry_run, again=again))

    def take() -> None:
        with _uninterrupted():  # an outcome that left the queue is journaled and told
            while not told.empty():
                outcome = told.get()
                journal.add(outcome)
                tell(outcome)

    running: set[Future[None]] = set()
    try:
        with ThreadPoolExecutor(workers, thread_name_prefix="enroll") as pool:
            try:
                left = iter(wishes)
                while together := list(islice(left, target.most_at_once)):
                    running.add(pool.submit(some, together))
                    if len(running) >= 2 * workers:
                        running -= _finished(running)
                        take()
                while running:
                    running -= _finished(running)
                    take()
            finally:
                for future in running:
                    future.cancel()
    finally:
        take()


def _finished(running: Iterable[Future[None]]) -> set[Future[None]]:
    """Wait for one at least. Raise what ended it."""
    done = wait(running, return_when=FIRST_COMPLETED).done
    for future in done:
        future.result()
    return done


def _created(
    target: EnrollmentTarget, together: Sequence[EnrollmentRequest], told: "SimpleQueue[Outcome]"
) -> list[EnrollmentRequest]:
    """Put on record what is new, tell it, and return what has to be enrolled by itself."""
    try:
        created = target.enroll_new(together)
    except _ENDS:
        raise
    except BirthmarkError:  # of them all, for what is wrong with one
        return list(together)
    pairs = list(zip(together, created, strict=True))
    for wish, is_created in pairs:
        if is_created:
            told.put(Outcome(wish.device_id, wish.certificate.thumbprint.hex(), Done.CREATED))
    return [wish for wish, is_created in pairs if not is_created]


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _one(target: EnrollmentTarget, wish: EnrollmentRequest, *, update: bool, dry_run: bool, again: str) -> Outcome:
    thumbprint = wish.certificate.thumbprint.hex()
    try:
        return Outcome(wish.device_id, thumbprint, target.enroll(wish, update=update, dry_run=dry_run))
    except _ENDS:
        raise
    except BirthmarkError as error:
        return refused(wish.device_id, thumbprint, error, again)
