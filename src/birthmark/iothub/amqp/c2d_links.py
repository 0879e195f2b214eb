"""Links of services: messages to devices, the feedback about them, and notifications of uploaded files.

A message to a device is accepted after its commit, or rejected with the condition of its refusal. Feedback and
notifications are locked while the service has them; the delivery tag is the lock token.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from birthmark.amqp.errors import AmqpError, AmqpErrorScope
from birthmark.amqp.events import DeliveryReceived, DeliverySettled
from birthmark.amqp.message import read_message
from birthmark.amqp.performatives import ACCEPTED, AcceptedOutcome, Outcome, RejectedOutcome
from birthmark.amqp.receiver_link import ReceiverLink
from birthmark.amqp.sender_link import SenderLink
from birthmark.auth.permission_statements import Right
from birthmark.broker.device_queue import DeviceQueues
from birthmark.broker.errors import LockLostError
from birthmark.broker.rules.device_queue import QueuedMessage, QueueOutcome
from birthmark.errors import BirthmarkError
from birthmark.iothub.amqp.error_conditions import amqp_error
from birthmark.iothub.amqp.link_handler import LinkConnection, LinkHandler
from birthmark.iothub.amqp.shared_watch import SharedWatch
from birthmark.iothub.model import Hub, space_of
from birthmark.iothub.rules.c2d import FEEDBACK, MAX_BYTES
from birthmark.iothub.rules.tier_throttles_and_quotas import ThrottleClass
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.file_uploads import NOTIFICATIONS
from birthmark.iothub.wire.amqp_addresses import ServiceNode
from birthmark.iothub.wire.amqp_c2d import C2dFormError, parse_c2d, render_feedback, render_file_notification
from birthmark.store import Changes, from_micros
from birthmark.supervised_tasks import note

CREDIT = 50
MAX_UNSETTLED = 50
"""Messages that a link to the service has at most without an outcome."""
_WATCH_S, _LOOK_S = 1.0, 10.0
MAX_MESSAGE_BYTES = 2 * MAX_BYTES
"""Bound for a link; the message itself may have `MAX_BYTES`, with its properties."""


class C2dLink(LinkHandler):
    """A link on which a service sends messages to devices."""

    def __init__(self, iothub: IotHub, connection: LinkConnection, link: ReceiverLink) -> None:
        """Accept the link. Raise `NoClaimError`, `RightMissingError`."""
        self._iothub = iothub
        self._connection = connection
        self._hub = connection.hub
        self.recheck()
        link.accept(credit=CREDIT, max_message_bytes=MAX_MESSAGE_BYTES)

    def recheck(self) -> None:
        self._connection.authorize(self._hub, ServiceNode.C2D, Right.OPERATE)

    def received(self, event: DeliveryReceived) -> Awaitable[None]:
        return self._received(event)

    async def _received(self, event: DeliveryReceived) -> None:
        try:
            if event.message_format:
                raise C2dFormError(
                    detail=f"its message format is {event.message_format:#x}, but batches are not served"
                )
            await self._send(event.payload)
        except BirthmarkError as error:
            tracking_id = self._connection.driver.note(error)
            event.link.reject(event.delivery_id, amqp_error(error, tracking_id, AmqpErrorScope.DELIVERY))
        else:
            event.link.settle(event.delivery_id, ACCEPTED)

    async def _send(self, payload: bytes) -> None:
        actor = self._connection.authorize(self._hub, ServiceNode.C2D, Right.OPERATE)
        throttles, c2d = self._iothub.throttles, self._iothub.c2d
        if throttles.of(self._hub.name) is not None:
            throttles.take(self._hub, ThrottleClass.MAIL)
            throttles.count(self._hub, len(payload))
        try:
            asked = parse_c2d(read_message(payload), from_micros(c2d.now()))
        except AmqpError as error:
            raise C2dFormError(detail=error.description) from error
        await c2d.send(
            self._hub,
            asked.device_id,
            asked.message,
            message_id=asked.message_id,
            feedback=asked.feedback,
            expiry=asked.expiry,
            actor=actor,
        )


@dataclass(frozen=True, slots=True)
class ServiceQueue:
    """A queue of messages to the service: feedback, or notifications of uploaded files."""

    node: ServiceNode
    queues: DeviceQueues
    name: str
    render: Callable[[QueuedMessage], bytes]


def feedback_queue(iothub: IotHub) -> ServiceQueue:
    """Return the queue of feedback about messages to devices."""
    c2d = iothub.c2d
    return ServiceQueue(
        *(ServiceNode.FEEDBACK, c2d.feedback, FEEDBACK), lambda one: render_feedback(one.id, [c2d.record_of(one)])
    )


def file_notification_queue(iothub: IotHub) -> ServiceQueue:
    """Return the queue of notifications of uploaded files."""
    files = iothub.files
    return ServiceQueue(
        *(ServiceNode.FILE_NOTIFICATIONS, files.notifications, NOTIFICATIONS),
        lambda one: render_file_notification(one.id, files.record_of(one)),
    )


def watch_queue(queue: ServiceQueue, hub: str) -> SharedWatch:
    """Return the watch of a queue to the service for all its links of a hub."""

    async def wait() -> bool:
        await asyncio.sleep(_WATCH_S)
        return await queue.queues.count(space_of(hub), queue.name) > 0

    return SharedWatch(wait, f"the watch of {queue.name}")


class ServiceQueueLink(LinkHandler):
    """A link on which a service receives feedback, or notifications of uploaded files."""

    def __init__(
        self,
        queue: ServiceQueue,
        connection: LinkConnection,
        link: SenderLink,
        watch: SharedWatch,
        *,
        holder: str,
        living: Changes,
    ) -> None:
        """Accept the link. Raise `NoClaimError`, `RightMissingError`."""
        self._queue, self._queues, self._name = queue, queue.queues, queue.name
        self._connection = connection
        self._link = link
        self._hub: Hub = connection.hub
        self._space = space_of(self._hub.name)
        self._watch, self._holder, self._living = watch, holder, living
        self._locks: dict[bytes, str] = {}
        self._wake = asyncio.Event()
        self._is_over = False
        self.recheck()
        link.accept(settled=False)
        self._task = asyncio.get_running_loop().create_task(self._run())

    def recheck(self) -> None:
        self._connection.authorize(self._hub, self._queue.node, Right.OPERATE)

    def resume(self) -> None:
        self._wake.set()

    def settled(self, event: DeliverySettled) -> Awaitable[None]:
        return self._settled(event)

    async def _settled(self, event: DeliverySettled) -> None:
        for tag in event.tags:
            if (lock := self._locks.pop(tag, None)) is not None:
                await self._settle(lock, event.outcome)
        if not event.settled:  # the client waits for our own settlement
            event.link.confirm(event.delivery_ids, event.outcome or ACCEPTED)
            self._connection.driver.wrote()
        self._wake.set()

    async def _settle(self, lock: str, outcome: Outcome | None) -> None:
        try:
            if isinstance(outcome, AcceptedOutcome):
                await self._queues.settle(self._space, self._name, lock, QueueOutcome.COMPLETED)
            elif isinstance(outcome, RejectedOutcome):
                await self._queues.settle(self._space, self._name, lock, QueueOutcome.REJECTED)
            else:
                await self._queues.abandon(self._space, self._name, lock)
        except LockLostError as error:  # it is delivered again
            self._connection.driver.note(error)

    def ended(self) -> None:
        self._is_over = True
        self._wake.set()

    async def _run(self) -> None:
        """Send messages until the link has ended, and return what has no outcome then."""
        try:
            with self._watch.waking(self._wake):
                while not self._is_over:
                    self._wake.clear()  # before looking, so that no change is missed
                    if not await self._send_next():
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(_LOOK_S):
                                await self._wake.wait()
        except Exception as error:  # noqa: BLE001 - any error: the peer must learn that its link has ended
            self._connection.detach(self._link, error)
        try:
            await self._queues.abandon_all(self._space, self._name, tuple(self._locks.values()))
        except BirthmarkError as error:  # the locks expire
            note("the return of unsettled messages", error)

    async def _send_next(self) -> bool:
        """Send a message, and return whether there was one."""
        link, driver = self._link, self._connection.driver
        if len(self._locks) >= MAX_UNSETTLED or not driver.can_write:
            return False
        if link.capacity and link.session.unsettled_capacity:
            message = await self._queues.take(self._space, self._name, holder=self._holder, condition=self._living)
            if message is not None and not (link.capacity and link.session.unsettled_capacity):
                await self._queues.restore(self._space, self._name, message)  # the credit or the link has ended
                return False
            if message is not None:
                lock = str(message.lock)
                tag = UUID(lock.rpartition("/")[2]).bytes
                self._locks[tag] = lock
                link.send(self._queue.render(message), tag=tag, settled=False)
                driver.wrote()
                return True
        if link.is_drain:
            link.complete_drain()
            driver.wrote()
        return False
