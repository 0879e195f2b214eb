"""Shared base of sinks for configured servers: one connection per batch of a partition, or one error for all."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from birthmark.errors import BirthmarkError
from birthmark.message_routing.delivery_model import Delivery, MessageServer
from birthmark.message_routing.sinks.errors import AddressInvalidError, NotTakenError
from birthmark.untrusted_json_and_text import reason_of


class ServerSink(ABC):
    """Base of sinks for configured servers.

    Addresses have `server`, a name in the configuration, and `topic`.
    """

    is_quick = False
    patience_s: ClassVar[float]

    def __init__(self, servers: Mapping[str, MessageServer]) -> None:
        self._servers = servers

    @property
    @abstractmethod
    def problems(self) -> tuple[type[Exception], ...]:
        """Exceptions of the server's client or its connection, in addition to those of the operating system."""

    @abstractmethod
    def find_topic_error(self, topic: str) -> str | None:
        """Return why a topic from a template is invalid, or None."""

    @abstractmethod
    async def publish(self, server: MessageServer, deliveries: Sequence[Delivery]) -> None:
        """Connect, publish, and wait until the server has received all deliveries."""

    async def carry(self, deliveries: Sequence[Delivery]) -> Sequence[BirthmarkError | None]:
        """Deliver messages; implements `birthmark.message_routing.delivery_model.Carrier`.

        A connection lasts for one batch of a partition.
        """
        name = deliveries[0].address["server"]
        mistakes = [self.find_topic_error(one.address["topic"]) for one in deliveries]
        good = [one for one, mistake in zip(deliveries, mistakes, strict=True) if mistake is None]
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
