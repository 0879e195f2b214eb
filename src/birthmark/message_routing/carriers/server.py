"""What the ways to servers of the configuration share: one connection for a portion of a lane, or a reason for all."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from birthmark.errors import BirthmarkError
from birthmark.message_routing.carriers.errors import AddressInvalidError, NotTakenError
from birthmark.message_routing.deliveries import Delivery, MessageServer
from birthmark.untrusted_text import reason_of


class ServerCarrier(ABC):
    """Addresses have `server`, a name of the configuration, and `topic`."""

    is_quick = False
    patience_s: ClassVar[float]

    def __init__(self, servers: Mapping[str, MessageServer]) -> None:
        self._servers = servers

    @property
    @abstractmethod
    def problems(self) -> tuple[type[Exception], ...]:
        """What its server, or the way to it, may fail with, beside what the system says."""

    @abstractmethod
    def mistake(self, topic: str) -> str | None:
        """Return what is wrong with a topic, as a template made it."""

    @abstractmethod
    async def publish(self, server: MessageServer, letters: Sequence[Delivery]) -> None:
        """Connect, publish, and return when the server has all of it."""

    async def carry(self, letters: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """See `birthmark.message_routing.deliveries.Carrier`. A connection lives as long as one portion of a lane."""
        name = letters[0].address["server"]
        mistakes = [self.mistake(one.address["topic"]) for one in letters]
        good = [one for one, mistake in zip(letters, mistakes, strict=True) if mistake is None]
        problem: NotTakenError | None = None
        if good:
            try:
                async with asyncio.timeout(self.patience_s):
                    await self.publish(self._servers[name], good)
            except TimeoutError:
                problem = NotTakenError(receiver=name, reason=f"no answer in {self.patience_s:g} s")
            except OSError as error:
                problem = NotTakenError(receiver=name, reason=reason_of(error))
            except KeyError:
                problem = NotTakenError(receiver=name, reason="the configuration names it no more")
            except self.problems as error:
                problem = NotTakenError(receiver=name, reason=reason_of(error))
        return [
            problem if mistake is None else AddressInvalidError(receiver=name, reason=mistake) for mistake in mistakes
        ]
