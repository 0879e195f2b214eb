"""HTTPS for simulated devices: one request per connection, with a bounded HTTP/1.1 parser.

See `birthmark.device_transports.ports.HttpsClient`.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from birthmark.device_transports.errors import LinkAnswerError, LinkTimeoutError
from birthmark.device_transports.ports import HttpResponse
from birthmark.device_transports.urls import MAX_ANSWER_BYTES, TIMEOUT_S, parse_url
from birthmark.errors import BirthmarkError
from birthmark.swarm.http_wire import AnswerBrokenError, AnswerReader, render_request
from birthmark.swarm.links.low_memory_tls_stream import Dialer


@dataclass(frozen=True, slots=True)
class SwarmHttps:
    """`pem` has key and chain; None presents no certificate."""

    dialer: Dialer
    pem: Path | None

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b"") -> HttpResponse:
        target = parse_url(url)
        stream = await self.dialer.open(target.host, target.port, self.pem)
        done: asyncio.Future[HttpResponse] = asyncio.get_running_loop().create_future()
        reader = AnswerReader(MAX_ANSWER_BYTES)

        def settle(answer: HttpResponse | None, error: BaseException | None = None) -> None:
            if done.done():
                return
            if error is not None:
                done.set_exception(error)
            elif answer is not None:
                done.set_result(answer)

        def on_data(data: bytes) -> None:
            try:
                settle(reader.receive(data))
            except AnswerBrokenError as error:
                settle(None, LinkAnswerError(host=target.host, port=target.port, reason=str(error)))

        def on_end(error: BirthmarkError) -> None:
            answer = reader.end()  # end of a response without a length
            settle(answer, error if answer is None else None)

        try:
            stream.listen(on_data, on_end)
            stream.write(render_request(method, target.path, target.authority, headers, body))
            async with asyncio.timeout(TIMEOUT_S):
                return await done
        except TimeoutError as error:
            raise LinkTimeoutError(host=target.host, port=target.port, seconds=f"{TIMEOUT_S:g}") from error
        finally:
            stream.close()
