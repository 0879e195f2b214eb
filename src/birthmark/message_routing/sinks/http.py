"""HTTP POST through the outbound client: one request per message, several of a partition at once.

2xx is success. Permanent failures (4xx, except those that request a retry) are not retried. Redirects are not followed.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from birthmark.errors import BirthmarkError, InvalidRequestError, PolicyError
from birthmark.message_routing.delivery_model import Delivery, is_final
from birthmark.message_routing.sinks.errors import AddressInvalidError, NotTakenError
from birthmark.outbound.http_client import OutboundResponse
from birthmark.untrusted_json_and_text import split_url

MOST_AT_ONCE = 8
_LATER = {401, 403, 404, 408, 425, 429}
"""Status codes of a receiver that is not configured yet, or busy (RFC 9110, 6585, 8470)."""
_NOT_FOUND = 404
_MAX_SAID = 100


class Post(Protocol):
    """Outbound HTTP client."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> OutboundResponse:
        """Send a request and return the response."""
        ...


class HttpSink:
    """Addresses have `url`, and `headers` by name; for one that `is_filled`, not found is permanent."""

    is_quick = False

    def __init__(self, outside: Post) -> None:
        self._outside = outside

    async def carry(self, deliveries: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """Deliver messages; implements `birthmark.message_routing.delivery_model.Carrier`."""
        turns = asyncio.Semaphore(MOST_AT_ONCE)
        is_away = False

        async def one(delivery: Delivery) -> BirthmarkError | None:
            nonlocal is_away
            async with turns:
                if is_away:  # the receiver just failed to answer: skip the rest
                    return NotTakenError(receiver=host_of_letter(delivery), reason="it did not take the one before")
                problem = await self._posted(delivery)
                if problem is not None and not is_final(problem):
                    is_away = True
                return problem

        return await asyncio.gather(*map(one, deliveries))

    async def _posted(self, delivery: Delivery) -> BirthmarkError | None:
        try:
            answer = await self._outside.post(
                delivery.address["url"], delivery.address.get("headers", {}), delivery.body
            )
        except (InvalidRequestError, PolicyError) as error:
            return AddressInvalidError(
                receiver=host_of_letter(delivery), reason=error.explain_cause().removesuffix(".")
            )
        except BirthmarkError as error:
            return NotTakenError(receiver=host_of_letter(delivery), reason=error.explain_cause().removesuffix("."))
        if answer.is_good:
            return None
        said = f"{answer.status} {answer.text[:_MAX_SAID]}".strip()
        later = _LATER - {_NOT_FOUND} if delivery.address.get("is_filled") else _LATER
        is_over = 300 <= answer.status < 500 and answer.status not in later  # noqa: PLR2004 - RFC 9110, section 15
        return NotTakenError(receiver=host_of_letter(delivery), reason=f"it responded with {said}", is_final=is_over)


def host_of_letter(delivery: Delivery) -> str:
    """Return the host of a delivery, `?` if its URL has none."""
    try:
        return split_url(delivery.address["url"]).hostname or "?"
    except ValueError:
        return "?"
