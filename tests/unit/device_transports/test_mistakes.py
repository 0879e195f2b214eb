"""A mistake of ours while a link reads: whoever waits hears that the link is over."""

import asyncio

import pytest

from birthmark.device_transports.errors import LinkLostError
from birthmark.device_transports.identity_and_trust import ServerTrust
from birthmark.device_transports.openssl.mqtt import OpensslMqtt
from support.fakes import FakeClock

SYSTEM = ServerTrust(None)


async def test_a_link_that_stumbles_tells_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    mqtt_link = OpensslMqtt(None, SYSTEM, FakeClock())

    async def stumbles() -> None:
        raise KeyError("a mistake of ours")

    monkeypatch.setattr(mqtt_link, "_step", stumbles)
    reading = asyncio.create_task(mqtt_link._run())
    with pytest.raises(LinkLostError):
        raise await mqtt_link.wait_for_loss()
    await reading
