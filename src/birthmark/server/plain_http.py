"""Health and the operator interface over plain HTTP, on loopback only."""

import asyncio
from collections.abc import Awaitable, Callable

import uvicorn

from birthmark.net.http import ASGIApp, BoundedHttp
from birthmark.net.listener import bind_error
from birthmark.server.settings import Settings


async def serve_plain(app: ASGIApp, settings: Settings) -> Callable[[], Awaitable[None]]:
    """Serve `app` on the health port and return what ends it. Raise what `Listeners.listen` raises."""
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", server_header=False)
    config.load()
    server = uvicorn.Server(config)
    limits = settings.bounds()
    address, port = settings.health_address, settings.ports.health
    try:
        listening = await asyncio.get_running_loop().create_server(
            lambda: BoundedHttp(config, server.server_state, limits),
            address,
            port,
        )
    except OSError as error:
        raise bind_error(error, address, port) from error

    async def close() -> None:
        listening.close()
        for connection in list(server.server_state.connections):
            connection.shutdown()
        await asyncio.sleep(0)

    return close
