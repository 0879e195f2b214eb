"""Forwarding of live messages to the workers with their subscribers, in batches."""

from collections.abc import Awaitable, Callable, Sequence

from birthmark.broker.bus_requests import DeliverRequest, LiveMessage
from birthmark.broker.publisher_backpressure import InFlightBudget
from birthmark.bus.ports import NoAnswerError, WorkerUnreachableError

_SMALL_BYTES, _FEW_CLIENTS = 8 * 1024, 64
_MOST_BYTES = 128 * 1024  # maximum of an AWS message

Sent = tuple[LiveMessage, str]
"""A message and its owner."""


class WorkerForwarder:
    """Forwards live messages to other workers in batches; `ask` sends a request to another worker."""

    def __init__(
        self, ask: Callable[[str, DeliverRequest], Awaitable[None]], spawn: Callable[[Awaitable[None]], None]
    ) -> None:
        self.in_flight = InFlightBudget()
        self._ask = ask
        self._spawn = spawn
        self._waiting: dict[str, dict[str | None, list[Sent]]] = {}  # by worker; by owner, None for several owners

    def send(self, worker: str, message: LiveMessage, owner: str) -> None:
        """Forward a message of `owner` soon; `underway` reports whether the window has space."""
        size = len(message.message)
        by_itself = size > _SMALL_BYTES or len(message.clients) > _FEW_CLIENTS or owner in self.in_flight
        self.in_flight.add(owner, size)
        if worker not in self._waiting:
            self._waiting[worker] = {None: []}
            self._spawn(self._flush(worker))
        self._waiting[worker].setdefault(owner if by_itself else None, []).append((message, owner))

    async def _flush(self, worker: str) -> None:
        """Send the queued messages; each owner's messages keep their order."""
        for sent in self._waiting.pop(worker).values():
            for some in _portions(sent):
                self._spawn(self._sent(worker, some))

    async def _sent(self, worker: str, some: Sequence[Sent]) -> None:
        try:
            await self._ask(worker, DeliverRequest(tuple([letter for letter, _ in some])))
        except (WorkerUnreachableError, NoAnswerError):  # its clients count as disconnected
            pass
        finally:
            for letter, owner in some:
                self.in_flight.remove(owner, len(letter.message))


def _portions(sent: Sequence[Sent]) -> list[list[Sent]]:
    """Split messages into requests; NATS limits a request to 1 MB."""
    found: list[list[Sent]] = []
    left = 0
    for one in sent:
        size = len(one[0].message)
        if left < size or not found:
            found.append([])
            left = _MOST_BYTES
        found[-1].append(one)
        left -= size
    return found
