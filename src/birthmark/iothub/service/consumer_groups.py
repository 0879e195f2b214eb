"""Consumer groups of hubs at their Event Hubs-compatible endpoint (REST reference, "IoT Hub Resource").

A group separates readers: the limit of readers and exclusive readers apply per group. Clients keep their positions.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from birthmark.clock_and_entropy import Clock
from birthmark.errors import ChangedMeanwhileError, ConflictError, InvalidRequestError, NotFoundError, PolicyError
from birthmark.iothub import store
from birthmark.iothub.domain_events import ConsumerGroupsChanged, HubDeleted
from birthmark.iothub.model import Hub
from birthmark.iothub.service.hubs_and_authorization import UnknownHubError
from birthmark.store import Changes, Database, retry_on_conflict
from birthmark.store.reloading_cache import RowCache

DEFAULT = "$Default"
MAX_GROUPS = 20
"""Maximum consumer groups per hub, with `$Default` ("Event Hubs quotas and limits", standard tier)."""
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,48}[A-Za-z0-9])?")


class UnknownConsumerGroupError(NotFoundError):
    """The hub has no such consumer group."""

    code = "iothub.unknown_consumer_group"
    message = "Consumer group {name} does not exist"
    cause = "Hub {hub} has no consumer group {name}."
    fix = (
        "To create this group: `birthmark hub consumer-group create {name} --hub {hub}`. List consumer groups: "
        "`birthmark hub consumer-group ls --hub {hub}`"
    )
    hub: str
    name: str


class ConsumerGroupNameError(InvalidRequestError):
    """The name of the consumer group is not valid."""

    code = "iothub.consumer_group_name_invalid"
    message = "The consumer group name {name} is not valid"
    cause = (
        "A consumer group name consists of 1 to 50 letters, digits, dots, hyphens and underscores, and begins and ends "
        "with a letter or a digit. The name {name} does not."
    )
    fix = "Choose another name. List consumer groups: `birthmark hub consumer-group ls --hub {hub}`"
    hub: str
    name: str


class DefaultGroupError(ConflictError):
    """The consumer group `$Default` cannot be deleted."""

    code = "iothub.default_consumer_group"
    message = "The consumer group $Default cannot be deleted"
    cause = "Every hub has the consumer group $Default, so it cannot be deleted from hub {hub}."
    fix = "Choose another group. List consumer groups: `birthmark hub consumer-group ls --hub {hub}`"
    hub: str


class TooManyConsumerGroupsError(PolicyError):
    """The hub has the maximum number of consumer groups."""

    code = "iothub.too_many_consumer_groups"
    message = "Hub {hub} has {limit} consumer groups, the maximum"
    cause = "Hub {hub} has {limit} consumer groups, with $Default, and a hub may not have more."
    fix = "Delete an unused consumer group. To list the groups: `birthmark hub consumer-group ls --hub {hub}`"
    hub: str
    limit: int = MAX_GROUPS


@dataclass(frozen=True, slots=True)
class ConsumerGroup:
    """A consumer group; names differ by more than letter case. `$Default` is as old as 1970."""

    name: str
    created_at: datetime


_BUILT_IN = ConsumerGroup(DEFAULT, datetime.fromtimestamp(0, UTC))


class ConsumerGroups:
    """Consumer groups of all hubs."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._known = RowCache(database, ConsumerGroupsChanged, HubDeleted)

    async def all(self, hub: Hub) -> Sequence[ConsumerGroup]:
        """Return the groups of a hub, `$Default` first."""
        found = await self._known.all(store.CONSUMER_GROUPS_OF_HUB, store.CONSUMER_GROUPS.of, hub=hub.name)
        return [_BUILT_IN, *(ConsumerGroup(one.name, one.created_at) for one in found)]

    async def get(self, hub: Hub, name: str) -> ConsumerGroup:
        """Return a group, in any letter case. Raise `UnknownConsumerGroupError`."""
        found = (one for one in await self.all(hub) if one.name.lower() == name.lower())
        if (group := next(found, None)) is None:
            raise UnknownConsumerGroupError(hub=hub.name, name=name[:50])
        return group

    async def create(self, hub: Hub, name: str, *, actor: str) -> ConsumerGroup:
        """Create a group, or return the existing one. Raise `ConsumerGroupNameError`, `TooManyConsumerGroupsError`."""
        if name.lower() != DEFAULT.lower() and _NAME.fullmatch(name) is None:
            raise ConsumerGroupNameError(hub=hub.name, name=name[:60])

        async def decide() -> ConsumerGroup:
            known = next((one for one in await self.all(hub) if one.name.lower() == name.lower()), None)
            if known is not None:
                return known
            changes = Changes()
            gone = UnknownHubError(host=hub.name)
            changes.run(store.LOCK_HUB, expect=1, otherwise=gone, key_name=hub.name)
            full = TooManyConsumerGroupsError(hub=hub.name)
            changes.run(store.HAS_GROUP_ROOM, expect=1, otherwise=full, key_name=hub.name, most=MAX_GROUPS - 1)
            group = store.StoredConsumerGroup(hub.name, name.lower(), name, self._clock.now())
            changes.run(
                store.ADD_CONSUMER_GROUP,
                expect=1,
                otherwise=ChangedMeanwhileError(what="The consumer group"),
                **store.CONSUMER_GROUPS.row(group),
            )
            changes.audit(actor, "iothub.consumer_group_create", name, hub=hub.name)
            await self._database.commit(changes.event(ConsumerGroupsChanged(hub.name)))
            return ConsumerGroup(group.name, group.created_at)

        return await retry_on_conflict(decide)

    async def delete(self, hub: Hub, name: str, *, actor: str) -> None:
        """Delete a group and disconnect its readers. Raise `UnknownConsumerGroupError`, `DefaultGroupError`."""
        if name.lower() == DEFAULT.lower():
            raise DefaultGroupError(hub=hub.name)
        changes = Changes().run(
            store.REMOVE_CONSUMER_GROUP,
            expect=1,
            otherwise=UnknownConsumerGroupError(hub=hub.name, name=name[:50]),
            hub=hub.name,
            lower_name=name.lower(),
        )
        changes.run(store.REMOVE_READERS_OF_GROUP, hub=hub.name, consumer_group=name.lower())
        changes.audit(actor, "iothub.consumer_group_delete", name, hub=hub.name)
        await self._database.commit(changes.event(ConsumerGroupsChanged(hub.name)))
