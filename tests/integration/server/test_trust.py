"""What a server hands out to be trusted, where its disk is full at the moment when that changes."""

import asyncio
from pathlib import Path

import pytest

from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.operator_api.client.server_discovery_and_api_client import OperatorClient
from birthmark.pki.certificates import parse_bundle
from birthmark.server import server as server_module
from birthmark.server.server import Server
from birthmark.server.settings import read_settings
from support.server.servers import free_address

pytestmark = pytest.mark.integration


async def test_a_bundle_that_could_not_be_written_is_written_later_and_the_certificate_does_not_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_LOOK_AT_FILES_S", 0.05)
    data, reloads = tmp_path / "data", list[None]()
    server = Server(read_settings(None, {}, data=str(data), listen=[free_address()]), SystemClock(), SystemEntropy())
    await server.start()
    try:
        monkeypatch.setattr(server, "reload", lambda: reloads.append(None))
        in_the_way = data / ".trust.pem.new"
        in_the_way.mkdir()
        await asyncio.to_thread(OperatorClient.of(data).post, "/ca/rollover/start", {})
        assert reloads
        in_the_way.rmdir()
        async with asyncio.timeout(5):
            while len(parse_bundle((data / "trust.pem").read_bytes())) < 2:
                await asyncio.sleep(0.01)
    finally:
        await server.stop()
