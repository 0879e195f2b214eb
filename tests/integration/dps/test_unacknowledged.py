"""A device that acknowledges none of the answers it gets over MQTT."""

import pytest

from birthmark.dps import wire
from birthmark.dps.connections import DpsConnections
from birthmark.dps.mqtt import DpsMqtt
from birthmark.mqtt.errors import QueueFullError
from birthmark.mqtt.packets import ConnAck, Connect, PubAck, Publish, SubAck, Subscribe
from birthmark.net.mqtt_driver import MqttDriver
from birthmark.net.tls import TlsPeer
from birthmark.refusals import Ledger
from support.azure.dps_world import a_dps
from support.azure.hub_world import Wire, until
from support.fakes import SeededEntropy
from support.pki.pki_builders import a_device

pytestmark = pytest.mark.integration


async def test_an_answer_that_finds_no_room_on_the_connection_is_left_out(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise QueueFullError("no room")

    async with a_dps(database_url) as world:
        device = a_device(common_name="pump-1")
        await world.individual("pump-1", device)
        ledger = Ledger(world.database, world.clock, SeededEntropy())
        accept = DpsMqtt(DpsConnections(world.registrations, ledger, world.clock)).accept
        peer, client = TlsPeer(device.certificate, (), b"", "", "TLSv1.3"), Wire()
        link = MqttDriver(accept, lambda *_: None, world.clock, peer)
        link.start(client, "192.0.2.1")

        def send(packet: Connect | Subscribe | Publish) -> None:
            client.client.send(packet)
            link.data_received(client.client.data_to_send())

        send(Connect("pump-1", username=wire.render_username(world.instance.id_scope, "pump-1", "")))
        await until(lambda: bool(client.got(ConnAck)))
        send(Subscribe(1, ((wire.RESPONSES, 1),)))
        await until(lambda: bool(client.got(SubAck)))
        with monkeypatch.context() as patched:
            patched.setattr(MqttDriver, "publish", full)
            send(Publish(wire.register_topic("1"), b"{}", 1, packet_id=2))
            await until(lambda: bool(client.got(PubAck)) or client.is_over)
        send(Publish(wire.register_topic("2"), b"{}", 1, packet_id=3))
        await until(lambda: bool(client.got(Publish)) or client.is_over)
        assert [one.topic for one in client.got(Publish)] == [wire.response_topic(200, "2", None)]
