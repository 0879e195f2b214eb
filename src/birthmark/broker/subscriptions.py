"""Subscriptions of a namespace: in the router for sessions in memory, in the database for stored sessions."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from birthmark.broker import store
from birthmark.broker.broker_context import BrokerContext, CountedNamespace
from birthmark.broker.connected_session import ConnectedSession
from birthmark.broker.model import Subscription
from birthmark.broker.rules.filter_shape_index import shape_of
from birthmark.broker.rules.session_ownership_columns import unclaimed_columns
from birthmark.broker.topic_router import TopicRouter
from birthmark.errors import ChangedMeanwhileError, UnavailableError
from birthmark.store import Changes, may_be_kept


class Subscriptions:
    """Subscriptions of a namespace."""

    def __init__(self, broker: BrokerContext, space: CountedNamespace, router: TopicRouter) -> None:
        self._broker = broker
        self._database = broker.database
        self._space = space
        self._router = router
        self._learnt: set[str] = set()

    def enter(self, attached: ConnectedSession, subscriptions: Sequence[Subscription]) -> list[bool] | None:
        """Subscribe as `subscribe` does if no write is required; otherwise, return None without any effect."""
        if attached.is_stored or attached.is_claimed or not self._broker.is_fresh:
            return None
        are_new = [one.name not in attached.subscriptions for one in subscriptions]
        for one in subscriptions:
            attached.subscriptions[one.name] = one
            if not attached.is_over and self._space.rules.routes:
                self._router.add(attached, one)
        return are_new

    async def subscribe(self, attached: ConnectedSession, subscriptions: Sequence[Subscription]) -> list[bool]:
        """Add subscriptions, durably for a stored session; return which are new."""
        await self._broker.wait_until_fresh()
        are_new = [one.name not in attached.subscriptions for one in subscriptions]
        has_rows = attached.is_stored or attached.is_claimed
        if has_rows and subscriptions:
            changes = Changes() if attached.is_claimed else self._space.condition(attached.client)
            if is_first := not attached.has_row:
                state = unclaimed_columns(attached.expiry_s)
                changes.run(store.ADD_IF_NEW, space=self._space.name, client=attached.client, epoch=1, **state)
            for one in subscriptions:
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
                self._space.count_stored_session()
        for one, is_new in zip(subscriptions, are_new, strict=True):
            attached.subscriptions[one.name] = one
            if has_rows and is_new:
                self.learn_shape(shape_of(one.topic_filter))
            elif not has_rows and not attached.is_over and self._space.rules.routes:
                self._router.add(attached, one)
        if has_rows and subscriptions:
            self._router.stored_changed()
            await self._broker.announce_shapes(self._space, [shape_of(one.topic_filter) for one in subscriptions])
        return are_new

    async def unsubscribe(self, attached: ConnectedSession, names: Iterable[str]) -> list[bool]:
        """Remove filters by their exact text; return which existed."""
        await self._broker.wait_until_fresh()
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
            await self._broker.announce_shapes(self._space)
        return [one is not None for one in found]

    async def _commit_as(self, attached: ConnectedSession, changes: Changes) -> None:
        """Commit on behalf of a session's connection, if it still owns the session.

        Raise `ChangedMeanwhileError`.
        """
        if attached.is_claimed:
            changes.run(store.STILL_MINE, expect=1, **attached.fence)
        try:
            await self._commit_idempotent(changes)
        except ChangedMeanwhileError:
            self._space.fenced(attached)
            raise

    async def _commit_idempotent(self, changes: Changes) -> None:
        """Commit idempotent changes; repeat the commit if its result is lost."""
        try:
            await self._database.commit(changes)
        except UnavailableError as error:
            if not may_be_kept(error):
                raise
            await self._database.commit(changes)

    def changed(self, shapes: Iterable[str] = ()) -> None:
        """Clear the cached lookups, and match filters of these shapes as well."""
        for shape in shapes:
            self.learn_shape(shape)
        self._router.stored_changed()

    def learn_shape(self, shape: str) -> None:
        """Match filters of this shape as well."""
        self._learnt.add(shape)
        self._router.stored_shapes.add(shape)

    def begin_shape_read(self) -> None:
        """Mark the start of a shape read: shapes learned from now on may be missing in its result."""
        self._learnt.clear()

    def finish_shape_read(self, shapes: AbstractSet[str]) -> None:
        """Replace the matched shapes by those that were read and those learned since."""
        self._router.stored_shapes.become(shapes | self._learnt)
        self._router.stored_changed()

    async def stored(self, client: str) -> dict[str, Subscription]:
        """Return the stored subscriptions of a client by filter."""
        rows = await self._database.all(store.SUBSCRIPTIONS, space=self._space.name, client=client)
        found = [Subscription(row["filter"], row["qos"], row["options"], row["share"]) for row in rows]
        return {one.name: one for one in found}
