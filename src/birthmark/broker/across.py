"""Messages for clients of other workers that nobody keeps: what comes in a turn of the loop goes there together.

What somebody sends while more of it is under way goes by itself, as what is large does: it may wait for turns there,
and nobody else's room is used up meanwhile.
"""

from collections.abc import Awaitable, Callable, Sequence

from birthmark.broker.requests import DeliverTo, Letter
from birthmark.broker.underway import Underway
from birthmark.bus.ports import NoAnswerError, NobodyThereError

_SMALL_BYTES, _FEW_CLIENTS = 8 * 1024, 64
_MOST_BYTES = 128 * 1024  # a message of AWS has no more
Sent = tuple[Letter, str]
"""A letter, and whose it is."""


class Across:
    """See the module. `ask` asks another worker."""

    def __init__(
        self, ask: Callable[[str, DeliverTo], Awaitable[None]], spawn: Callable[[Awaitable[None]], None]
    ) -> None:
        self.underway = Underway()
        self._ask = ask
        self._spawn = spawn
        self._waiting: dict[str, dict[str | None, list[Sent]]] = {}  # by worker; by owner, None's with those of others

    def send(self, worker: str, letter: Letter, owner: str) -> None:
        """Send a message of `owner` soon; `underway` says whether there is room for more."""
        size = len(letter.message)
        by_itself = size > _SMALL_BYTES or len(letter.clients) > _FEW_CLIENTS or owner in self.underway
        self.underway.begun(owner, size)
        if worker not in self._waiting:
            self._waiting[worker] = {None: []}
            self._spawn(self._flush(worker))
        self._waiting[worker].setdefault(owner if by_itself else None, []).append((letter, owner))

    async def _flush(self, worker: str) -> None:
        """Of one owner, what is sent with those of others is what came first."""
        for sent in self._waiting.pop(worker).values():
            for some in _portions(sent):
                self._spawn(self._sent(worker, some))

    async def _sent(self, worker: str, some: Sequence[Sent]) -> None:
        try:
            await self._ask(worker, DeliverTo(tuple([letter for letter, _ in some])))
        except (NobodyThereError, NoAnswerError):  # its clients are as good as cut off
            pass
        finally:
            for letter, owner in some:
                self.underway.ended(owner, len(letter.message))


def _portions(sent: Sequence[Sent]) -> list[list[Sent]]:
    """Return what goes in one request each: NATS takes no more than a megabyte."""
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
