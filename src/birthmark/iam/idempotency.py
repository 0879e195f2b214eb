"""Idempotent requests (draft-ietf-httpapi-idempotency-key-header).

A client names a request with its own key. The response is stored for a day, sealed, as it may contain a secret. The
same client that repeats the same request gets the same response, and nothing is executed. A refusal is not stored, as
it changed nothing. If a server ends between execution and response, the outcome is unknown, and the error reports that.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from birthmark.clock_and_entropy import Clock
from birthmark.errors import ConflictError, PolicyError, ThrottledError
from birthmark.iam import idempotency_model as store
from birthmark.iam.idempotency_model import IdempotentRequest, IdempotentResponse
from birthmark.store import Changes, Database, to_micros

KEPT_FOR = timedelta(days=1)
LONGEST = timedelta(minutes=6)
"""Maximum duration of a request: a method waits 5 minutes for its device, and 5 for its response to begin."""
MOST_OF_ONE = 10_000
MAX_ANSWER_CHARS = 16 * 1024
FAILED = 500
_LATER_S = 3600
_DONE = "and was completed; its response was too long to store"
_PERHAPS = "and ended without an answer: it may have been done"


class KeyUsedError(PolicyError):
    """The key was used for another request."""

    code = "operator.idempotency_key_used"
    cause = "The Idempotency-Key {key} was used for another request within the last day."
    fix = "Use a new key for each request, such as the output of `uuidgen`."
    for_a_person = "a developer has to change the client program"
    key: str


class StillBeingDoneError(ConflictError):
    """The same request is in progress."""

    code = "operator.still_being_done"
    cause = "The request with the Idempotency-Key {key} has been in progress since {since}."
    fix = "Wait a few seconds and repeat the request with the same key to receive the response to the first request."
    for_a_person = "the client program has to wait"
    key: str
    since: str


class OutcomeUnknownError(ConflictError):
    """The request started, and its response is not available."""

    code = "operator.outcome_unknown"
    cause = "The request with the Idempotency-Key {key} started at {since} {what}."
    fix = "Check whether the request was completed. If not, send the request again with another key."
    for_a_person = "a user has to check the result of the request"
    key: str
    since: str
    what: str


class TooManyKeysError(ThrottledError):
    """Too many responses are stored for this user."""

    code = "operator.too_many_keys"
    cause = (
        "{who} has reached the limit of {count} requests with an Idempotency-Key, which the server stores for one day."
    )
    fix = "Send the request without a key, or wait until the oldest requests are one day old."
    for_a_person = "the client program has to wait"
    count: int
    who: str


@dataclass(frozen=True, slots=True)
class IdempotencyStore:
    """Idempotency keys in use and their stored responses."""

    database: Database = field(repr=False)
    clock: Clock = field(repr=False)

    async def begin(self, request: IdempotentRequest) -> IdempotentResponse:
        """Record the start of a request; return its stored response if it was sent before.

        Raise `KeyUsedError`, `StillBeingDoneError`, `OutcomeUnknownError`, `TooManyKeysError`.
        """
        now = self.clock.now()
        known = await self._known(request, now)
        if known is not None:
            return known
        count = (await self.database.all(store.COUNT_OF, who=request.who, now=to_micros(now)))[0]["count"]
        if count >= MOST_OF_ONE:
            raise TooManyKeysError(count=count, who=request.who, retry_after_s=_LATER_S)
        begun = IdempotentResponse(request.digest, request.who, request.asked, now, now + KEPT_FOR)
        changes = Changes().run(store.PURGE, now=to_micros(now))
        beaten = StillBeingDoneError(key=request.key, since=_told(now))
        await self.database.commit(changes.run(store.ADD, expect=1, otherwise=beaten, **store.KEPT.row(begun)))
        return begun

    async def store_response(self, begun: IdempotentResponse, status: int, answer: str | None) -> None:
        """Store the response; of one that is too long or missing, only store that the request ended."""
        kept = answer if answer is not None and len(answer) <= MAX_ANSWER_CHARS else None
        at = to_micros(begun.began_at)
        changes = Changes().run(store.ANSWERED, key_digest=begun.digest, key_began_at=at, status=status, answer=kept)
        await self.database.commit(changes)

    async def forget(self, begun: IdempotentResponse) -> None:
        """Release the key of a request that changed nothing, so that it can be repeated."""
        await self.database.commit(Changes().run(store.FORGET, digest=begun.digest, began_at=to_micros(begun.began_at)))

    async def _known(self, request: IdempotentRequest, now: datetime) -> IdempotentResponse | None:
        row = await self.database.one(store.BY_DIGEST, digest=request.digest)
        known = None if row is None else store.KEPT.of(row)
        if known is None or known.ends_at <= now:
            return None
        if known.asked != request.asked:
            raise KeyUsedError(key=request.key)
        if known.status is not None and known.answer is not None:
            return known
        since = _told(known.began_at)
        if known.status is None and now - known.began_at < LONGEST:
            raise StillBeingDoneError(key=request.key, since=since)
        is_done = known.status is not None and known.status < FAILED
        raise OutcomeUnknownError(key=request.key, since=since, what=_DONE if is_done else _PERHAPS)


def _told(timestamp: datetime) -> str:
    return f"{timestamp:%Y-%m-%d %H:%M:%S} UTC"
