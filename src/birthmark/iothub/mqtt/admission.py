"""Decides on CONNECT packets of devices and modules."""

from functools import partial

from birthmark.broker.model import BrokerMessage, Will
from birthmark.errors import BirthmarkError
from birthmark.iothub import wire
from birthmark.iothub.connections import HubConnections
from birthmark.iothub.error_mapping import connack_reason
from birthmark.iothub.model import Hub, Identity
from birthmark.iothub.mqtt.connection import HubConnection
from birthmark.iothub.rules.authentication import check_client_id
from birthmark.iothub.rules.will_messages import check_will
from birthmark.mqtt.packets import Connect
from birthmark.net.mqtt_driver import MqttDriver
from birthmark.net.mqtt_service_interface import Admission, MqttRefusedError, require_3_1_1

MAX_KEEP_ALIVE_S = 1177  # times 1.5 this is the hub's cap of 1767 s


class MqttAdmission:
    """Admits devices; a new connection of a device closes its old one."""

    def __init__(self, connections: HubConnections) -> None:
        self._connections = connections

    async def accept(self, driver: MqttDriver, packet: Connect) -> Admission:
        """Admit the client of a CONNECT, or raise `MqttRefusedError`."""
        require_3_1_1(packet)
        names: dict[str, str] = {}
        connections = self._connections
        registry = connections.iothub.registry

        def make(hub: Hub, identity: Identity, is_of_policy: bool) -> HubConnection:  # noqa: FBT001 - a callback
            space = connections.space(hub.name)
            return HubConnection(connections, driver, space, hub=hub, identity=identity, is_of_policy=is_of_policy)

        try:
            user = wire.parse_username(packet.username or "")
            names = {"device_id": user.name, "hub": user.host}
            connection, attached, token = await connections.admit(
                user,
                partial(registry.authenticate, user, driver.peer, packet.password, address=driver.address),
                make=make,
                clean_start=packet.clean_start,
                may_connect=partial(_will_of, packet),
            )
        except BirthmarkError as error:
            error.add_facts(**names)
            raise MqttRefusedError(connack_reason(error), error) from error
        assert isinstance(connection, HubConnection)  # noqa: S101 - as `make` returned it
        if token is not None:
            connections.close_with_token(token, connection)
        return Admission(
            connection=connection,
            proved_by="" if token is None else f"device {connection.hub.name}/{connection.device_id}",
            session_present=attached.session_present,
            keep_alive_s=min(packet.keep_alive_s or MAX_KEEP_ALIVE_S, MAX_KEEP_ALIVE_S),
            traffic=connections.traffic,
        )


def _will_of(packet: Connect, identity: Identity) -> Will | None:
    """Return a device's will. Raise `ClientIdError`, `WillInvalidError` or `PropertyBagError`."""
    check_client_id(identity, packet.client_id)
    if (will := packet.will) is None:
        return None
    check_will(identity.name, will.topic, will.qos)
    return Will(BrokerMessage(will.topic, will.payload, will.qos, will.retain, publisher=identity.name))
