"""NATS: publishes to subjects of a configured server. A flush confirms receipt."""

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from typing import Any

from birthmark.message_routing.delivery_model import Delivery, MessageServer
from birthmark.message_routing.sinks.server_sink_base import ServerSink

CONNECT_S = FLUSH_S = 5


class NatsSink(ServerSink):
    """Publishes to a NATS server; see `ServerCarrier`. A topic is a subject."""

    patience_s = 12.0

    @property
    def problems(self) -> tuple[type[Exception], ...]:
        """Exceptions of the library."""
        from nats.errors import Error  # noqa: PLC0415 - only senders load the library

        return (Error,)

    def find_topic_error(self, topic: str) -> str | None:
        if topic and not any(one in topic for one in " \t\r\n*>") and "" not in topic.split("."):
            return None
        return f"{topic[:100]!r} is not a valid subject"

    async def publish(self, server: MessageServer, deliveries: Sequence[Delivery]) -> None:
        import nats  # noqa: PLC0415 - as above

        more: dict[str, Any] = {"user": server.user, "password": server.password} if server.user else {}
        if server.url.startswith("tls:"):
            more["tls"] = await asyncio.to_thread(ssl.create_default_context, cadata=server.ca)
        client = await nats.connect(
            server.url,
            connect_timeout=CONNECT_S,
            allow_reconnect=False,
            name="birthmark rules",
            error_cb=_ignore_error,
            **more,
        )
        try:
            for letter in deliveries:
                await client.publish(letter.address["topic"], letter.body)
            await client.flush(FLUSH_S)
        finally:
            with contextlib.suppress(OSError, *self.problems, TimeoutError):
                async with asyncio.timeout(1):
                    await client.close()


async def _ignore_error(error: Exception) -> None:
    """Ignore the error: `flush` raises it."""
    del error
