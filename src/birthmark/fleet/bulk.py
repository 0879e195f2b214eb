"""Enroll many: bounded concurrency, every outcome told and journaled as it is known, also when the run is stopped."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

from birthmark.errors import BirthmarkError, ThrottledError, UnauthenticatedError, UnavailableError
from birthmark.fleet.journal import Journal, Outcome, refused
from birthmark.fleet.target import Done, EnrollmentRequest, EnrollmentTarget


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

    def some(together: Sequence[EnrollmentRequest]) -> list[Outcome]:
        created = target.enroll_new(together) if len(together) > 1 and not dry_run else [False] * len(together)
        return [
            Outcome(wish.device_id, wish.certificate.thumbprint.hex(), Done.CREATED)
            if is_created
            else _one(target, wish, update=update, dry_run=dry_run, again=again)
            for wish, is_created in zip(together, created, strict=True)
        ]

    def take(finished: Iterable[Future[list[Outcome]]]) -> None:
        for future in finished:
            running.discard(future)
            for outcome in future.result():
                journal.add(outcome)
                tell(outcome)

    running: set[Future[list[Outcome]]] = set()
    with ThreadPoolExecutor(workers, thread_name_prefix="enroll") as pool:
        try:
            left = iter(wishes)
            while together := list(islice(left, target.most_at_once)):
                running.add(pool.submit(some, together))
                if len(running) >= 2 * workers:
                    take(wait(running, return_when=FIRST_COMPLETED).done)
            while running:
                take(wait(running, return_when=FIRST_COMPLETED).done)
        finally:
            begun = [future for future in running if not future.cancel()]
            take(future for future in wait(begun).done if future.exception() is None)


def _one(target: EnrollmentTarget, wish: EnrollmentRequest, *, update: bool, dry_run: bool, again: str) -> Outcome:
    thumbprint = wish.certificate.thumbprint.hex()
    try:
        return Outcome(wish.device_id, thumbprint, target.enroll(wish, update=update, dry_run=dry_run))
    except (UnavailableError, UnauthenticatedError, ThrottledError):
        raise
    except BirthmarkError as error:
        return refused(wish.device_id, thumbprint, error, again)
