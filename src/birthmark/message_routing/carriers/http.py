"""HTTP POST by the outbound room: one request for each letter, a few of a lane at once.

2xx is taken. What says that this will never be taken (4xx, but for those that mean later) is not tried again. Nothing
follows a redirect.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from birthmark.errors import BirthmarkError, InvalidRequestError, PolicyError
from birthmark.message_routing.carriers.errors import AddressInvalidError, NotTakenError
from birthmark.message_routing.deliveries import Delivery, is_final
from birthmark.outbound.http_sender import OutboundResponse
from birthmark.untrusted_text import split_url

MOST_AT_ONCE = 8
_LATER = {401, 403, 404, 408, 425, 429}
"""What a receiver says that is not set up yet, or busy (RFC 9110, 6585, 8470)."""
_NOT_FOUND = 404
_MAX_SAID = 100


class Post(Protocol):
    """The way out."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> OutboundResponse:
        """Send, and return what the receiver said."""
        ...


class HttpCarrier:
    """Addresses have `url`, and `headers` by name; what is not found at one that `is_filled` never will be."""

    is_quick = False

    def __init__(self, outside: Post) -> None:
        self._outside = outside

    async def carry(self, letters: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """See `birthmark.message_routing.deliveries.Carrier`."""
        turns = asyncio.Semaphore(MOST_AT_ONCE)
        is_away = False

        async def one(letter: Delivery) -> BirthmarkError | None:
            nonlocal is_away
            async with turns:
                if is_away:  # the rest is not tried at a receiver that just did not answer
                    return NotTakenError(receiver=host_of_letter(letter), reason="it did not take the one before")
                problem = await self._posted(letter)
                if problem is not None and not is_final(problem):
                    is_away = True
                return problem

        return await asyncio.gather(*map(one, letters))

    async def _posted(self, letter: Delivery) -> BirthmarkError | None:
        try:
            answer = await self._outside.post(letter.address["url"], letter.address.get("headers", {}), letter.body)
        except (InvalidRequestError, PolicyError) as error:
            return AddressInvalidError(receiver=host_of_letter(letter), reason=error.explain_cause().removesuffix("."))
        except BirthmarkError as error:
            return NotTakenError(receiver=host_of_letter(letter), reason=error.explain_cause().removesuffix("."))
        if answer.is_good:
            return None
        said = f"{answer.status} {answer.text[:_MAX_SAID]}".strip()
        later = _LATER - {_NOT_FOUND} if letter.address.get("is_filled") else _LATER
        is_over = 300 <= answer.status < 500 and answer.status not in later  # noqa: PLR2004 - RFC 9110, section 15
        return NotTakenError(receiver=host_of_letter(letter), reason=f"it answered {said}", is_final=is_over)


def host_of_letter(letter: Delivery) -> str:
    """Return the host that a letter goes to, `?` where its URL has none."""
    try:
        return split_url(letter.address["url"]).hostname or "?"
    except ValueError:
        return "?"
