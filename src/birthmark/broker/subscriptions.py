"""Subscriptions of one space: in the router while their session lives in memory, in the database where it is stored."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from birthmark.broker import store
from birthmark.broker.connected_session import ConnectedSession
from birthmark.broker.model import Subscription
from birthmark.broker.namespace_context import BrokerContext, CountedNamespace
from birthmark.broker.routing import TopicRouter
from birthmark.broker.rules.filter_index import shape_of
from birthmark.broker.rules.sessions import unclaimed
from birthmark.errors import ChangedMeanwhileError, UnavailableError
from birthmark.store import Changes, may_be_kept


class Subscriptions:
    """See the module."""

    def __init__(self, broker: BrokerContext, space: CountedNamespace, router: TopicRouter) -> None:
        self._broker = broker
        self._database = broker.database
        self._space = space
        self._router = router
        self._learnt: set[str] = set()

    def enter(self, attached: ConnectedSession, wanted: Sequence[Subscription]) -> list[bool] | None:
        """Do what `subscribe` does where nothing has to be written first; else return None, and do nothing."""
        if attached.is_stored or attached.is_claimed or not self._broker.is_fresh:
            return None
        are_new = [one.name not in attached.subscriptions for one in wanted]
        for one in wanted:
            attached.subscriptions[one.name] = one
            if not attached.is_over and self._space.rules.routes:
                self._router.add(attached, one)
        return are_new

    async def subscribe(self, attached: ConnectedSession, wanted: Sequence[Subscription]) -> list[bool]:
        """Enter subscriptions; those of a stored session are durable when this returns. Say which are new."""
        await self._broker.fresh()
        are_new = [one.name not in attached.subscriptions for one in wanted]
        has_rows = attached.is_stored or attached.is_claimed
        if has_rows and wanted:
            changes = Changes() if attached.is_claimed else self._space.condition(attached.client)
            if is_first := not attached.has_row:
                state = unclaimed(attached.expiry_s)
                changes.run(store.ADD_IF_NEW, space=self._space.name, client=attached.client, epoch=1, **state)
            for one in wanted:
                row: dict[str, Any] = {
                    "filter": one.topic_filter,
                    "share": one.share,
                    "shape": shape_of(one.topic_filter),
                }
                state = {"qos": one.qos, "options": one.options}
                changes.run(store.SUBSCRIBE, space=self._space.name, client=attached.client, **row, **state)
            await self._commit_as(attached, changes)
            if is_first and not attached.has_row:
                attached.mark_persisted()
                self._space.one_more_is_stored()
        for one, is_new in zip(wanted, are_new, strict=True):
            attached.subscriptions[one.name] = one
            if has_rows and is_new:
                self.learn_shape(shape_of(one.topic_filter))
            elif not has_rows and not attached.is_over and self._space.rules.routes:
                self._router.add(attached, one)
        if has_rows and wanted:
            self._router.stored_changed()
            await self._broker.made_known(self._space, [shape_of(one.topic_filter) for one in wanted])
        return are_new

    async def unsubscribe(self, attached: ConnectedSession, names: Iterable[str]) -> list[bool]:
        """Take filters out by their exact text, and say which were there."""
        await self._broker.fresh()
        found = [attached.subscriptions.get(name) for name in names]
        gone = [one for one in found if one is not None]
        has_rows = attached.is_stored or attached.is_claimed
        if has_rows and gone:
            changes = Changes()
            for one in gone:
                row: dict[str, Any] = {"filter": one.topic_filter, "share": one.share}
                changes.run(store.UNSUBSCRIBE, space=self._space.name, client=attached.client, **row)
            await self._commit_as(attached, changes)
        for one in gone:
            if attached.subscriptions.pop(one.name, None) is None:
                continue
            if not has_rows:
                self._router.remove(attached, one)
        if has_rows and gone:
            self._router.stored_changed()
            await self._broker.made_known(self._space)
        return [one is not None for one in found]

    async def _commit_as(self, attached: ConnectedSession, changes: Changes) -> None:
        """Commit in the name of a session's connection, if it is still the one. Raise `ChangedMeanwhileError`."""
        if attached.is_claimed:
            changes.run(store.STILL_MINE, expect=1, **attached.fence)
        try:
            await self._repeated(changes)
        except ChangedMeanwhileError:
            self._space.fenced(attached)
            raise

    async def _repeated(self, changes: Changes) -> None:
        """Commit what may be written twice, and once more when the answer is lost."""
        try:
            await self._database.commit(changes)
        except UnavailableError as error:
            if not may_be_kept(error):
                raise
            await self._database.commit(changes)

    def changed(self, shapes: Iterable[str] = ()) -> None:
        """Forget what was looked up, and look for filters of these shapes too."""
        for shape in shapes:
            self.learn_shape(shape)
        self._router.stored_changed()

    def learn_shape(self, shape: str) -> None:
        """Look for filters of this shape too."""
        self._learnt.add(shape)
        self._router.stored_shapes.add(shape)

    def shapes_are_read(self) -> None:
        """What is learnt from now on may not be in what is read."""
        self._learnt.clear()

    def has_shapes(self, shapes: AbstractSet[str]) -> None:
        """Look for filters of these shapes, which were read, and of those learnt since."""
        self._router.stored_shapes.become(shapes | self._learnt)
        self._router.stored_changed()

    async def stored(self, client: str) -> dict[str, Subscription]:
        """Return what is stored of a client's, by name."""
        rows = await self._database.all(store.SUBSCRIPTIONS, space=self._space.name, client=client)
        found = [Subscription(row["filter"], row["qos"], row["options"], row["share"]) for row in rows]
        return {one.name: one for one in found}
