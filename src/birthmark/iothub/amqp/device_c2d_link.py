"""A link on which a device receives messages: the delivery tag is the message's lock, the outcome ends it."""

from collections.abc import Awaitable
from uuid import UUID

from birthmark.amqp.errors import AmqpErrorScope, LocalProtocolError
from birthmark.amqp.events import DeliverySettled
from birthmark.amqp.link import LinkState
from birthmark.amqp.performatives import (
    ACCEPTED,
    AcceptedOutcome,
    Outcome,
    RejectedOutcome,
    error_info_of,
)
from birthmark.amqp.sender_link import SenderLink
from birthmark.broker.rules.device_queue import QueuedMessage, QueueOutcome
from birthmark.iothub.amqp.error_conditions import amqp_error
from birthmark.iothub.amqp.link_handler import LinkDevice, LinkHandler
from birthmark.iothub.connections import HubConnections
from birthmark.iothub.connections.c2d_delivery import C2dDelivery, ReceiverFullError
from birthmark.iothub.wire.amqp_c2d import render_devicebound
from birthmark.net.amqp_driver import AmqpDriver


class DeviceboundLink(LinkHandler):
    """Handler of one link."""

    __slots__ = ("_c2d", "_connections", "_delivery", "_device", "_driver", "_is_over", "_link")

    def __init__(self, connections: HubConnections, device: LinkDevice, driver: AmqpDriver, link: SenderLink) -> None:
        """Accept the link."""
        self._connections = connections
        self._c2d = connections.iothub.c2d
        self._device = device
        self._driver = driver
        self._link = link
        self._delivery = C2dDelivery(
            self._c2d,
            self,
            device.hub,
            device.identity.name,
            holder=connections.holder,
            living=connections.living,
            look=self.resume,
        )
        self._is_over = False
        link.accept(settled=False)

    @property
    def is_ready(self) -> bool:
        link = self._link
        return not self._is_over and bool(link.capacity and link.session.unsettled_capacity) and self._driver.can_write

    def send(self, message: QueuedMessage) -> bytes:
        if not self.is_ready:
            raise ReceiverFullError
        lock = UUID(str(message.lock).rpartition("/")[2])
        payload = render_devicebound(self._device.identity.name, message, self._c2d.mail_of(message), lock)
        try:
            self._link.send(payload, tag=lock.bytes, settled=False)
        except LocalProtocolError as error:
            raise ReceiverFullError from error
        self._driver.wrote()
        return lock.bytes

    def resume(self) -> None:
        if self._link.is_drain and not self._is_over:
            self._spawn(self._drain())
        elif self.is_ready:
            self._spawn(self._delivery.flow())

    async def _drain(self) -> None:
        await self._delivery.flow()
        self._link.complete_drain()
        self._driver.wrote()

    def settled(self, event: DeliverySettled) -> Awaitable[None]:
        return self._settled(event)

    async def _settled(self, event: DeliverySettled) -> None:
        lost = await self._delivery.settle(event.tags, _outcome_of(event.outcome))
        answer: Outcome = event.outcome or ACCEPTED
        if lost is not None:
            tracking_id = str(self._device.driver.note(lost))
            answer = RejectedOutcome(error_info_of(amqp_error(lost, tracking_id, AmqpErrorScope.DELIVERY)))
        if not event.settled:  # the client waits for our own settlement
            event.link.confirm(event.delivery_ids, answer)
            self._driver.wrote()

    @property
    def is_attached(self) -> bool:
        """Whether the link has not ended."""
        return self._link.state is LinkState.ATTACHED

    def ended(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._spawn(self._release())

    async def release(self) -> None:
        """Return messages without an outcome to the queue."""
        await self._delivery.release_unacknowledged()

    async def _release(self) -> None:
        await self.release()
        await self._connections.notify_anywhere(self._device.hub.name, self._device.identity.name)

    def _spawn(self, work: Awaitable[None]) -> None:
        self._connections.space(self._device.hub.name).spawn(work)


def _outcome_of(outcome: Outcome | None) -> QueueOutcome | None:
    """Return how the message ends; None returns it to the queue."""
    if isinstance(outcome, AcceptedOutcome):
        return QueueOutcome.COMPLETED
    return QueueOutcome.REJECTED if isinstance(outcome, RejectedOutcome) else None
