"""MQTT over WebSocket: whose clock counts, and how it ends."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.applications import Starlette

from birthmark.net.accepted_connection import Connection
from birthmark.net.bounded_http import HttpService
from birthmark.net.errors import WebSocketSubprotocolError
from birthmark.net.listener_limits import Limits
from birthmark.net.websocket_transport import _CLOSE_S, _OverWebSocket, choose_subprotocol


def test_mqtts_keep_alive_is_the_only_clock() -> None:
    assert HttpService(Starlette(), Limits())._config.ws_ping_interval is None


async def test_a_connection_that_is_over_ends_though_its_peer_reads_nothing() -> None:
    deadlines: list[tuple[float | None, Any]] = []
    below = SimpleNamespace(set_deadline=lambda after, act=None: deadlines.append((after, act)), abort=object())
    transport = _OverWebSocket(cast("Connection", below))
    transport.close()
    assert deadlines == [(_CLOSE_S, below.abort)]
    async with asyncio.timeout(1):
        assert await transport.outgoing.get() is None


@pytest.mark.parametrize(
    ("offered", "answered"),
    [
        ([], None),
        (["mqtt"], "mqtt"),
        (["mqttv3.1"], "mqttv3.1"),
        (["MQTT"], "MQTT"),
        (["mqttv3.1", "mqtt"], "mqtt"),
        (["AMQPWSB10", "mqttv3.1.1"], "mqttv3.1.1"),
    ],
)
def test_an_upgrade_is_answered_with_a_subprotocol_that_the_client_offers(
    offered: list[str], answered: str | None
) -> None:
    assert choose_subprotocol(offered) == answered


@pytest.mark.parametrize("offered", [["AMQPWSB10"], ["chat", "wamp.2.json"], [""]])
def test_an_upgrade_that_offers_other_subprotocols_alone_is_refused(offered: list[str]) -> None:
    with pytest.raises(WebSocketSubprotocolError):
        choose_subprotocol(offered)
