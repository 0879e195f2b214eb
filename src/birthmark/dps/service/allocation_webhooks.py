"""The programs of users that choose hubs: which may be asked, and how one is.

The real service asks up to ten times more of a webhook that is busy, for minutes. Here a device waits for its answer,
thirty seconds at most: the webhook is asked three times within twenty, and the device asks again by itself.
"""

import asyncio
import json
from collections.abc import Mapping
from http import HTTPStatus

from birthmark.broker.keyed_lock import KeyedLock
from birthmark.dps.rules.custom_allocation import (
    AllocationFailedError,
    AllocationUnauthorizedError,
    WebhookInvalidError,
)
from birthmark.errors import BirthmarkError, InvalidRequestError, PolicyError
from birthmark.outbound.callouts import Questions, QuestionsWaitError
from birthmark.outbound.http_sender import HttpSender, NotAnsweredError

PAUSES_S = (1.0, 3.0)
PATIENCE_S = 20.0
"""For all of its questions about one registration."""
_NOBODY = "outbound calls are disabled"
_HEADERS = {"content-type": "application/json", "user-agent": "birthmark"}


class AllocationWebhooks:
    """The programs of users that choose hubs."""

    def __init__(self, sender: HttpSender | None = None) -> None:
        """Without a `sender` nobody is called."""
        self._sender = sender
        self._questions = None if sender is None else Questions(sender)
        self._turns: KeyedLock[tuple[str, str]] = KeyedLock()
        self.pauses_s = PAUSES_S

    def check(self, enrollment_id: str, url: str) -> None:
        """Return for a URL that may be called; else raise `WebhookInvalidError`."""
        if self._sender is None:
            raise WebhookInvalidError(enrollment=enrollment_id, detail=_NOBODY)
        try:
            self._sender.check(url)
        except (InvalidRequestError, PolicyError) as error:
            detail = error.explain_cause().removesuffix(".")
            raise WebhookInvalidError(enrollment=enrollment_id, detail=detail) from error

    async def ask(self, scope: str, url: str, request: object, facts: Mapping[str, str]) -> bytes:
        """Return what a webhook answers with 200. Raise `AllocationFailedError`, `QuestionsWaitError`.

        One device has one question at a time. `facts` say whose it is.
        """
        if self._questions is None:
            raise AllocationFailedError(reason=_NOBODY, **facts)
        body = json.dumps(request).encode()
        mine = scope, facts["registration_id"].lower()
        try:
            async with asyncio.timeout(PATIENCE_S), self._turns.alone_with(mine):
                return await self._answer(self._questions, mine, url, body, facts)
        except TimeoutError as error:
            raise AllocationFailedError(reason=f"no good answer in {PATIENCE_S:g} s", **facts) from error

    async def _answer(
        self, questions: Questions, mine: tuple[str, str], url: str, body: bytes, facts: Mapping[str, str]
    ) -> bytes:
        scope, device = mine
        for pause_s in (*self.pauses_s, None):
            try:
                status, answer = await questions.ask((scope, url), device, url, _HEADERS, body)
            except QuestionsWaitError:
                raise
            except BirthmarkError as error:
                reason = error.reason if isinstance(error, NotAnsweredError) else error.explain_cause()
                raise AllocationFailedError(reason=reason.removesuffix("."), **facts) from error
            if status == HTTPStatus.OK:
                return answer
            reason = f"it answers {status}"
            if status == HTTPStatus.UNAUTHORIZED:
                raise AllocationUnauthorizedError(reason=reason, **facts)
            if status < HTTPStatus.TOO_MANY_REQUESTS or pause_s is None:
                break
            await asyncio.sleep(pause_s)
        raise AllocationFailedError(reason=reason, **facts)
