"""A way to a server that forgets its flows, as a firewall does: what is said on old ones vanishes, new ones pass."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit


class Way:
    """Passes on what comes to `port`, until it forgets."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._age = 0
        self._carrying: set[asyncio.Task[None]] = set()
        self.port = 0

    def forget(self) -> None:
        """Let nothing more through on what is open now; neither end is told."""
        self._age += 1

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        age, task = self._age, asyncio.current_task()
        assert task is not None
        self._carrying.add(task)

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    if age == self._age:
                        sink.write(data)
                if age == self._age:
                    sink.close()

        async with contextlib.AsyncExitStack() as closing:
            closing.callback(writer.close)
            there, back = await asyncio.open_connection(*self._to)
            closing.callback(back.close)
            await asyncio.gather(copy(reader, back), copy(there, writer))
        self._carrying.discard(task)

    async def serve(self, ready: threading.Event) -> None:
        self._over, self._loop = asyncio.Event(), asyncio.get_running_loop()
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._over.wait()
        server.close()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)
        await asyncio.sleep(0.01)  # the loop closes them in its next turns

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)


@contextlib.contextmanager
def a_way(url: str) -> Iterator[tuple[str, Way]]:
    """Yield a database's URL over such a way, and the way."""
    at = urlsplit(url)
    way, ready = Way(at.hostname or "127.0.0.1", at.port or 5432), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(way.serve(ready)))
    thread.start()
    ready.wait()
    try:
        yield at._replace(netloc=f"{at.username}@127.0.0.1:{way.port}", query="sslmode=disable").geturl(), way
    finally:
        way.end()
        thread.join()
