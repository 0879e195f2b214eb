"""Cloud-to-device messages as PUBLISH packets: PUBACK completes a message; others return to the device queue."""

from collections.abc import Mapping

from birthmark.broker.model import Subscription
from birthmark.broker.rules.device_queue import QueuedMessage
from birthmark.iothub import wire
from birthmark.iothub.connections.c2d_delivery import ReceiverFullError
from birthmark.iothub.service.c2d import CloudToDevice
from birthmark.mqtt.errors import QueueFullError
from birthmark.net.mqtt_driver import MqttDriver


class MqttC2dReceiver:
    """A device's connection as the receiver of its queue; `subscriptions` are evaluated at each delivery."""

    __slots__ = ("_c2d", "_device_id", "_driver", "_subscriptions")

    def __init__(
        self, c2d: CloudToDevice, driver: MqttDriver, device_id: str, subscriptions: Mapping[str, Subscription]
    ) -> None:
        self._c2d = c2d
        self._driver = driver
        self._device_id = device_id
        self._subscriptions = subscriptions

    @property
    def is_ready(self) -> bool:
        return self._wanted is not None

    @property
    def _wanted(self) -> Subscription | None:
        """The subscription that currently receives messages, or None."""
        return None if self._driver.is_over else self._subscriptions.get(wire.devicebound(self._device_id))

    def send(self, message: QueuedMessage) -> int | None:
        if (wanted := self._wanted) is None:
            raise ReceiverFullError
        mail = self._c2d.mail_of(message)
        topic = wire.devicebound_topic(self._device_id, message.id, message.feedback, mail)
        try:
            packet_id = self._driver.publish(topic, mail.payload, wanted.qos)
        except QueueFullError as error:
            raise ReceiverFullError from error
        if packet_id is None and wanted.qos:
            raise ReceiverFullError
        return packet_id
