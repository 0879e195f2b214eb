"""Custom allocation webhooks: permitted URLs, and calls with retries.

The real service retries a busy webhook up to ten times over minutes. Here a device waits for the response, 30 s at
most. The webhook is called three times within 20 s, and the device retries by itself.
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
from birthmark.outbound.callouts import CalloutClient, QuestionsWaitError
from birthmark.outbound.http_client import HttpSender, NotAnsweredError

PAUSES_S = (1.0, 3.0)
PATIENCE_S = 20.0
"""Maximum time for all calls about one registration."""
_NOBODY = "outbound calls are disabled"
_HEADERS = {"content-type": "application/json", "user-agent": "birthmark"}


class AllocationWebhooks:
    """Webhooks of users that choose hubs."""

    def __init__(self, sender: HttpSender | None = None) -> None:
        """Create the webhooks; without a `sender`, none is called."""
        self._sender = sender
        self._questions = None if sender is None else CalloutClient(sender)
        self._turns: KeyedLock[tuple[str, str]] = KeyedLock()
        self.pauses_s = PAUSES_S

    def check(self, enrollment_id: str, url: str) -> None:
        """Raise `WebhookInvalidError` unless the URL may be called."""
        if self._sender is None:
            raise WebhookInvalidError(enrollment=enrollment_id, detail=_NOBODY)
        try:
            self._sender.check(url)
        except (InvalidRequestError, PolicyError) as error:
            detail = error.explain_cause().removesuffix(".")
            raise WebhookInvalidError(enrollment=enrollment_id, detail=detail) from error

    async def ask(self, scope: str, url: str, request: object, facts: Mapping[str, str]) -> bytes:
        """Return the body of a webhook's 200 response. Raise `AllocationFailedError`, `QuestionsWaitError`.

        A device has one call at a time. `facts` identify the device.
        """
        if self._questions is None:
            raise AllocationFailedError(reason=_NOBODY, **facts)
        body = json.dumps(request).encode()
        mine = scope, facts["registration_id"].lower()
        try:
            async with asyncio.timeout(PATIENCE_S), self._turns.lock(mine):
                return await self._answer(self._questions, mine, url, body, facts)
        except TimeoutError as error:
            raise AllocationFailedError(reason=f"no good answer in {PATIENCE_S:g} s", **facts) from error

    async def _answer(
        self, questions: CalloutClient, mine: tuple[str, str], url: str, body: bytes, facts: Mapping[str, str]
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
