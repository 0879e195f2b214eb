"""Links that read partitions of a hub's event stream: consumer groups, limits and exclusive readers.

A reader that attaches is registered first and checked against the database afterwards. A reader that becomes exclusive
is committed first and announced afterwards. So one of two readers of different workers always learns of the other.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

from birthmark.amqp.sender_link import SenderLink
from birthmark.amqp.values import DescribedValue
from birthmark.broker.ports import MessageStream
from birthmark.clock_and_entropy import Entropy, new_uuid
from birthmark.errors import BirthmarkError, InvalidRequestError, PolicyError
from birthmark.iothub.amqp.event_reader import EventReader, watch_stream
from birthmark.iothub.amqp.link_handler import LinkConnection, LinkHandler
from birthmark.iothub.amqp.node_requests import check_entity, parse_partition
from birthmark.iothub.amqp.shared_watch import SharedWatch
from birthmark.iothub.domain_events import ConsumerGroupsChanged, ReaderReplaced
from birthmark.iothub.model import Hub, TelemetryMessage
from birthmark.iothub.rules.event_positions import EventFilterError, parse_filter
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.consumer_groups import DEFAULT
from birthmark.iothub.service.exclusive_readers import PartitionOfGroup
from birthmark.iothub.wire.amqp_addresses import EventPartition
from birthmark.store import Changes
from birthmark.supervised_tasks import note

MAX_READERS = 5
"""Readers without an epoch of one consumer group on one partition, at each worker (Event Hubs quotas)."""
MAX_MESSAGE_BYTES = 1024 * 1024
METRICS = "com.microsoft:enable-receiver-runtime-metric"
_EPOCH = "com.microsoft:epoch"
_SELECTOR = "apache.org:selector-filter:string"
_MAX_EPOCH = 2**63 - 1


class TooManyReadersError(PolicyError):
    """The partition has too many readers of one consumer group."""

    code = "iothub.too_many_readers"
    message = "Partition {partition} has {limit} readers of the consumer group {group}, the maximum"
    cause = "Partition {partition} of hub {hub} has {limit} readers of the consumer group {group}, the maximum."
    fix = (
        "Close unused readers, or read in another consumer group: `birthmark hub consumer-group create NAME --hub "
        "{hub}`"
    )
    group: str
    hub: str
    limit: int = MAX_READERS
    partition: int


class ReaderPropertyError(InvalidRequestError):
    """A property of a reader is not valid."""

    code = "iothub.event_reader_invalid"
    message = "The reader is not valid: {detail}"
    cause = "A reader of partition {partition} of hub {hub} is not valid: {detail}."
    fix = "Use an Event Hubs SDK, or read with the CLI: `birthmark hub messages --hub {hub}`"
    detail: str
    hub: str
    partition: int


@dataclass(frozen=True, slots=True)
class ReaderTerms:
    """What a reader asks for: a partition as a consumer group, and whether it is exclusive."""

    hub: Hub
    partition: PartitionOfGroup
    epoch: int | None
    resource: str


class EventLinks:
    """All event readers of this worker, and what they share."""

    def __init__(self, iothub: IotHub, entropy: Entropy, holder: str) -> None:
        self.iothub = iothub
        self.holder = holder
        self._entropy = entropy
        self._readers: dict[PartitionOfGroup, set[EventLink]] = {}
        self._watches: dict[str, tuple[MessageStream[TelemetryMessage], SharedWatch]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.sent: Counter[str] = Counter()
        """Number of events sent, by hub."""

    def new_holder(self) -> str:
        """Return the holder of a new reader."""
        return f"{self.holder}/{new_uuid(self._entropy)}"

    def watch(self, hub: Hub) -> SharedWatch:
        """Return the watch of a hub's stream, shared by its readers."""
        stream = self.iothub.telemetry.stream(hub)
        known = self._watches.get(hub.name)
        if known is None or known[0] is not stream:
            known = self._watches[hub.name] = (stream, watch_stream(stream))
        return known[1]

    def add(self, link: "EventLink") -> None:
        """Register a reader. Raise `TooManyReadersError`."""
        present = self._readers.setdefault(link.terms.partition, set())
        if link.terms.epoch is None and sum(one.terms.epoch is None for one in present) >= MAX_READERS:
            at = link.terms.partition
            group = DEFAULT if at.group == DEFAULT.lower() else at.group
            raise TooManyReadersError(hub=at.hub, group=group, partition=at.number)
        present.add(link)

    def remove(self, link: "EventLink") -> None:
        """Forget a reader, and end its exclusive right."""
        partition = link.terms.partition
        if (present := self._readers.get(partition)) is not None:
            present.discard(link)
            if not present:
                del self._readers[partition]
        if link.terms.epoch is not None:
            task = asyncio.get_running_loop().create_task(self._release(partition, link.holder))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _release(self, partition: PartitionOfGroup, holder: str) -> None:
        try:
            await self.iothub.exclusive_readers.release(partition, holder)
        except BirthmarkError as error:  # the next reader with the same or a higher epoch replaces it
            note("the end of an exclusive reader", error)

    def counts(self) -> Counter[str]:
        """Return the number of readers by hub."""
        found: Counter[str] = Counter()
        for partition, links in self._readers.items():
            found[partition.hub] += len(links)
        return found

    def check_replaced(self, event: ReaderReplaced) -> None:
        """Check the readers of a partition that has a new exclusive reader."""
        for link in self._readers.get(PartitionOfGroup(event.hub, event.group, event.partition), ()):
            link.check_soon()

    def check_groups(self, event: ConsumerGroupsChanged) -> None:
        """Check the readers of a hub whose consumer groups changed."""
        for partition, links in self._readers.items():
            if partition.hub == event.hub:
                for link in links:
                    link.check_soon()


class EventLink(LinkHandler):
    """One link that reads a partition."""

    def __init__(self, shared: EventLinks, connection: LinkConnection, link: SenderLink, terms: ReaderTerms) -> None:
        self.terms = terms
        self.holder = shared.new_holder()
        self._shared = shared
        self._connection = connection
        self._link = link
        self._is_to_check = False
        self._reader: EventReader | None = None
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def attach(
        cls,
        shared: EventLinks,
        connection: LinkConnection,
        link: SenderLink,
        address: EventPartition,
        condition: Changes,
    ) -> "EventLink":
        """Start a reader and accept its link. Raise `BirthmarkError`."""
        terms = await _terms_of(shared.iothub, connection, link, address)
        position = parse_filter(_selector_of(link))
        made = cls(shared, connection, link, terms)
        shared.add(made)
        try:
            await made._start(condition)
            stream = shared.iothub.telemetry.stream(terms.hub)
            wants_metrics = METRICS in link.desired_capabilities
            made._reader = reader = EventReader(
                *(link, stream, shared.watch(terms.hub), connection.driver, terms.partition.number),
                check=made.check,
                count=made._count,
                with_metrics=wants_metrics,
            )
            await reader.start(position)
        except BaseException:
            made.ended()
            raise
        link.accept(
            settled=True,
            max_message_bytes=MAX_MESSAGE_BYTES,
            properties=link.properties or None,
            offered_capabilities=(METRICS,) if wants_metrics else None,
        )
        if made._is_to_check:  # it heard of a change while it started
            reader.check_soon()
        made._task = asyncio.get_running_loop().create_task(reader.run(made._stopped))
        return made

    async def _start(self, condition: Changes) -> None:
        partition, epoch = self.terms.partition, self.terms.epoch
        if epoch is not None:
            await self._shared.iothub.exclusive_readers.acquire(partition, epoch, self.holder, condition)
        await self.check()

    async def check(self) -> None:
        """Raise `BirthmarkError` if the reader must end: its group is gone, or another reader is exclusive."""
        iothub, partition = self._shared.iothub, self.terms.partition
        await iothub.consumer_groups.get(self.terms.hub, partition.group)
        await iothub.exclusive_readers.check(partition, self.terms.epoch, self.holder)

    def check_soon(self) -> None:
        """Have the reader check before it sends again."""
        self._is_to_check = True
        if self._reader is not None:
            self._reader.check_soon()

    def resume(self) -> None:
        if self._reader is not None:
            self._reader.resume()

    def recheck(self) -> None:
        self._connection.authorize(self.terms.hub, self.terms.resource)

    def ended(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._shared.remove(self)

    def _count(self, sent: int) -> None:
        self._shared.sent[self.terms.hub.name] += sent

    def _stopped(self, error: Exception) -> None:
        self._connection.detach(self._link, error)


async def _terms_of(
    iothub: IotHub, connection: LinkConnection, link: SenderLink, address: EventPartition
) -> ReaderTerms:
    hub = connection.hub
    check_entity(hub, address.entity)
    connection.authorize(hub, address.resource)
    group = await iothub.consumer_groups.get(hub, address.group)
    number = parse_partition(hub, str(address.partition))
    epoch: Any = link.properties.get(_EPOCH)
    if epoch is not None and not (type(epoch) is not bool and isinstance(epoch, int) and 0 <= epoch <= _MAX_EPOCH):
        raise ReaderPropertyError(hub=hub.name, partition=number, detail="its epoch is not a number from 0")
    partition = PartitionOfGroup(hub.name, group.name.lower(), number)
    return ReaderTerms(hub, partition, None if epoch is None else int(epoch), address.resource)


def _selector_of(link: SenderLink) -> str | None:
    value = next((one for name, one in link.filter.items() if str(name) == _SELECTOR), None)
    found = value.value if isinstance(value, DescribedValue) else value
    if found is None or isinstance(found, str):
        return found
    raise EventFilterError(text=str(found)[:100])
