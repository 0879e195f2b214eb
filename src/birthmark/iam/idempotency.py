"""Requests that are carried out once, however often they are sent (draft-ietf-httpapi-idempotency-key-header).

Who asks names a request by a key of its own. What was answered is kept for a day, sealed, as an answer may show a
secret: the same one who sends the same again gets the same answer, and nothing is done. A refusal did nothing, so it is
not kept. Where a server ended between the deed and the answer, nobody can say whether it was done, and that is said.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from birthmark.clock import Clock
from birthmark.errors import ConflictError, PolicyError, ThrottledError
from birthmark.iam import idempotency_model as store
from birthmark.iam.idempotency_model import IdempotentRequest, IdempotentResponse
from birthmark.store import Changes, Database, to_micros

KEPT_FOR = timedelta(days=1)
LONGEST = timedelta(minutes=6)
"""How long a request may take: a method waits five minutes for its device, and five for its answer to begin."""
MOST_OF_ONE = 10_000
MAX_ANSWER_CHARS = 16 * 1024
FAILED = 500
_LATER_S = 3600
_DONE = "and was done; its answer was too long to be kept"
_PERHAPS = "and ended without an answer: it may have been done"


class KeyUsedError(PolicyError):
    """The key was used for another request."""

    code = "operator.idempotency_key_used"
    cause = "The Idempotency-Key {key} was used for another request within the last day."
    fix = "Use a new key for each request, such as the output of `uuidgen`."
    for_a_person = "the client program has to be changed"
    key: str


class StillBeingDoneError(ConflictError):
    """The same request is in progress."""

    code = "operator.still_being_done"
    cause = "The request with the Idempotency-Key {key} has been in progress since {since}."
    fix = "Wait a few seconds and repeat the request with the same key; it returns the first request's response."
    for_a_person = "the client program has to wait"
    key: str
    since: str


class OutcomeUnknownError(ConflictError):
    """The request started, and its response is not available."""

    code = "operator.outcome_unknown"
    cause = "The request with the Idempotency-Key {key} started at {since}, {what}."
    fix = "Check whether it was completed. If not, send it with another key."
    for_a_person = "the result of the request has to be checked"
    key: str
    since: str
    what: str


class TooManyKeysError(ThrottledError):
    """Too many responses are stored for this user."""

    code = "operator.too_many_keys"
    cause = "{count} requests of {who} with an Idempotency-Key are stored for one day, and no more are accepted."
    fix = "Send the request without a key, or wait until the oldest are one day old."
    for_a_person = "the client program has to wait"
    count: int
    who: str


@dataclass(frozen=True, slots=True)
class IdempotencyStore:
    """What was asked by a key, and what was answered."""

    database: Database = field(repr=False)
    clock: Clock = field(repr=False)

    async def begin(self, request: IdempotentRequest) -> IdempotentResponse:
        """Note that a request begins; return what was answered to it, where it was sent before.

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

    async def answered(self, begun: IdempotentResponse, status: int, answer: str | None) -> None:
        """Keep what was answered; of one that is too long or has none, that it has ended."""
        kept = answer if answer is not None and len(answer) <= MAX_ANSWER_CHARS else None
        at = to_micros(begun.began_at)
        changes = Changes().run(store.ANSWERED, key_digest=begun.digest, key_began_at=at, status=status, answer=kept)
        await self.database.commit(changes)

    async def forget(self, begun: IdempotentResponse) -> None:
        """Let a request be sent again, as nothing was done."""
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


def _told(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
