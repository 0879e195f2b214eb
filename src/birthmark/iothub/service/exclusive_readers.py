"""Exclusive readers of a partition: one reader with an epoch per consumer group (Event Hubs, "Event consumers").

The SDKs call the epoch an owner level. A reader with the same or a higher epoch replaces the present one, on any
worker. A reader with a lower epoch, or without one, is refused.
"""

from dataclasses import dataclass
from typing import Any

from birthmark.errors import BirthmarkError, ConflictError
from birthmark.iothub import store
from birthmark.iothub.domain_events import ReaderReplaced
from birthmark.iothub.service.consumer_groups import DEFAULT
from birthmark.store import Changes, Database, retry_on_conflict


class ExclusiveReaderError(ConflictError):
    """Another reader has the partition."""

    code = "iothub.exclusive_reader"
    message = "A reader with epoch {present} has partition {partition} of the consumer group {group}"
    cause = (
        "Partition {partition} of hub {hub} has an exclusive reader with the epoch (owner level) {present} in the "
        "consumer group {group}. The client's reader has {requested}."
    )
    fix = (
        "Stop the other reader, or read with the same or a higher owner level, or in another consumer group: "
        "`birthmark hub consumer-group create NAME --hub {hub}`"
    )
    group: str
    hub: str
    partition: int
    present: int
    requested: str


@dataclass(frozen=True, slots=True)
class PartitionOfGroup:
    """A partition of a hub, as a consumer group reads it. The group is in lower case."""

    hub: str
    group: str
    number: int

    @property
    def row(self) -> dict[str, Any]:
        """Return the key of its row."""
        return {"hub": self.hub, "consumer_group": self.group, "partition": self.number}


class ExclusiveReaders:
    """Exclusive readers of all hubs. A holder names one reader, and begins with its worker's holder."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def acquire(self, partition: PartitionOfGroup, epoch: int, holder: str, condition: Changes) -> None:
        """Make a reader the only one. Raise `ExclusiveReaderError`, or the error of `condition`."""

        async def decide() -> None:
            row = await self._database.one(store.GET_READER, **partition.row)
            changes = Changes().merge(condition)
            if row is None:
                changes.run(store.ADD_READER, expect=1, **partition.row, epoch=epoch, holder=holder)
            elif row["epoch"] > epoch:
                raise _error(partition, row["epoch"], epoch)
            else:
                as_read = {f"key_{name}": value for name, value in partition.row.items()}
                as_read |= {"key_epoch": row["epoch"], "key_holder": row["holder"]}
                changes.run(store.CHANGE_READER, expect=1, epoch=epoch, holder=holder, **as_read)
            event = ReaderReplaced(partition.hub, partition.group, partition.number)
            await self._database.commit(changes.event(event))

        await retry_on_conflict(decide, attempts=4)

    async def check(self, partition: PartitionOfGroup, epoch: int | None, holder: str) -> None:
        """Raise `ExclusiveReaderError` if another reader has the partition exclusively."""
        row = await self._database.one(store.GET_READER, **partition.row)
        if (row is None) if epoch is None else (row is not None and row["holder"] == holder):
            return
        raise _error(partition, -1 if row is None else row["epoch"], epoch)

    async def release(self, partition: PartitionOfGroup, holder: str) -> None:
        """End a reader's exclusive right, if it still has it."""
        await self._database.commit(Changes().run(store.REMOVE_READER, **partition.row, holder=holder))

    async def free_held(self, holder: str) -> None:
        """End the rights of all readers whose holder has a prefix, because their worker no longer exists."""
        await self._database.commit(Changes().run(store.FREE_READERS, first=f"{holder}/", beyond=f"{holder}0"))


def _error(partition: PartitionOfGroup, present: int, requested: int | None) -> BirthmarkError:
    told = "no epoch" if requested is None else f"epoch {requested}"
    if requested == present:
        told = "the same one and was replaced by the newer reader, which is normal when readers balance their load"
    group = DEFAULT if partition.group == DEFAULT.lower() else partition.group
    return ExclusiveReaderError(
        hub=partition.hub, group=group, partition=partition.number, present=present, requested=told
    )
