"""NATS: publishes to subjects of a server that the configuration names. A flush says that the server has them."""

import asyncio
import contextlib
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

import nats
from nats.errors import Error

from birthmark.errors import BirthmarkError
from birthmark.routing.carriers.errors import AddressInvalidError, NotTakenError
from birthmark.routing.letters import Letter
from birthmark.routing.servers import Server
from birthmark.text import reason_of

CONNECT_S = FLUSH_S = 5
PATIENCE_S = 12.0


class NatsCarrier:
    """Addresses have `server`, a name of the configuration, and `topic`, the subject."""

    is_quick = False

    def __init__(self, servers: Mapping[str, Server]) -> None:
        self._servers = servers

    async def carry(self, letters: Sequence[Letter]) -> Sequence[BirthmarkError | None]:
        """See `birthmark.routing.letters.Carrier`. A connection lives as long as one portion of a lane."""
        name = letters[0].address["server"]
        wrong = [_wrong(letter) for letter in letters]
        good = [letter for letter, problem in zip(letters, wrong, strict=True) if problem is None]
        problem: NotTakenError | None = None
        if good:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._publish(self._servers[name], good)
            except (OSError, Error, TimeoutError, KeyError) as error:
                why = reason_of(error) if isinstance(error, OSError) else str(error) or type(error).__name__
                problem = NotTakenError(receiver=name, reason=why)
        return [one or problem for one in wrong]

    async def _publish(self, server: Server, letters: Sequence[Letter]) -> None:
        more: dict[str, Any] = {"user": server.user, "password": server.password} if server.user else {}
        if server.url.startswith("tls:"):
            more["tls"] = await asyncio.to_thread(ssl.create_default_context, cafile=server.ca)
        client = await nats.connect(
            server.url,
            connect_timeout=CONNECT_S,
            allow_reconnect=False,
            name="birthmark rules",
            error_cb=_nobody,
            **more,
        )
        try:
            for letter in letters:
                await client.publish(letter.address["topic"], letter.body)
            await client.flush(FLUSH_S)
        finally:
            with contextlib.suppress(OSError, Error, TimeoutError):
                async with asyncio.timeout(1):
                    await client.close()


async def _nobody(error: Exception) -> None:
    """Leave it to `flush`, which says what it was."""
    del error


def _wrong(letter: Letter) -> AddressInvalidError | None:
    subject = letter.address["topic"]
    if subject and not any(one in subject for one in " \t\r\n*>") and "" not in subject.split("."):
        return None
    return AddressInvalidError(receiver=letter.address["server"], reason=f"{subject[:100]!r} is no subject")
