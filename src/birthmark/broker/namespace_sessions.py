"""Sessions of a namespace on this worker: connect, disconnect, resume and expire.

A connect raises the session's epoch in a conditional write. Every later write of the session is conditional on that
epoch and this worker. A worker that has its database alone skips writes that change nothing, because no other worker
can take the session.

A session that is not stored exists in memory for the duration of its connection.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from birthmark.broker import store
from birthmark.broker.broker_context import BrokerContext
from birthmark.broker.bus_requests import LastSeenRequest
from birthmark.broker.chunked_deletes import delete_most_of_queue
from birthmark.broker.connected_session import ConnectedSession, Observer
from birthmark.broker.connection_admin import ConnectionAdmin
from birthmark.broker.errors import SessionShareUsedError, SessionTakenError, TooManySessionsError
from birthmark.broker.keyed_lock import KeyedLock
from birthmark.broker.live_connections import ClientPresence, LastContact
from birthmark.broker.message_fan_out import MessagePublisher
from birthmark.broker.model import BrokerMessage, SessionRecord, Subscription, Will, decode_messages, decode_will
from birthmark.broker.ports import ClientConnection, PublishListener
from birthmark.broker.retained_messages import RetainedMessages
from birthmark.broker.rules import session_ownership_columns
from birthmark.broker.rules.principal_quotas import Portions, SpaceRules, bounds_of_sessions
from birthmark.broker.rules.send_window import SendWindow
from birthmark.broker.subscriptions import Subscriptions
from birthmark.broker.topic_router import TopicRouter
from birthmark.errors import ChangedMeanwhileError, UnavailableError
from birthmark.net.mqtt_service_interface import CloseReason
from birthmark.store import Changes
from birthmark.store.database import Row
from birthmark.store.table_statements import MAX_LIST_VALUES, list_parameters

log = logging.getLogger(__name__)

_ATTEMPTS = 20
_QUEUE_ROWS = 16
_RELEASE_AGAIN_S = 1.0


Condition = Callable[[str], Changes]
"""Returns a write guard for a client, checked when its session is first stored or gets a subscription."""


class Arrival(msgspec.Struct, frozen=True):
    """An authorized client with its session options."""

    client: str
    connection: ClientConnection
    clean_start: bool
    expiry_s: int = 0
    will: Will | None = None
    window: int = 100
    tags: frozenset[str] = frozenset()
    """Tags of the resources that the connection depends on."""
    principal: str = ""
    """Principal whose quota of stored sessions applies, whatever the client ID; empty without quotas."""


class Namespace(ClientPresence):
    """The sessions of a namespace on this worker."""

    def __init__(
        self,
        broker: BrokerContext,
        name: str,
        rules: SpaceRules,
        observer: Observer,
        condition: Condition | None,
        *,
        shapes: Mapping[str, int],
        stored: Sequence[int],
        tap: PublishListener | None,
    ) -> None:
        """Create a namespace; `shapes` maps the shapes of stored filters to their number.

        `stored` has the numbers of stored sessions and retained messages.
        """
        super().__init__()
        self._broker = broker
        self._database = broker.database
        self._router = TopicRouter(hash_matches_parent=rules.hash_matches_parent)
        for shape, count in shapes.items():
            self._router.stored_shapes.add(shape, count)
        self._arriving: KeyedLock[str] = KeyedLock()
        self._latest: dict[str, Arrival] = {}  # latest arrival per connecting client
        self._stored_count, retained = stored
        self._latest_epoch = 0
        self._shares = Portions()  # of stored sessions
        self.name = name
        self.dropped = 0  # messages dropped due to full queues
        self.rules = rules
        self.observer = observer
        self._condition = condition
        self.worker = broker.worker
        self.is_alone = broker.is_alone
        self.now = broker.now
        self.spawn = broker.spawn
        self.sleep = broker.sleep
        self._leaving: dict[str, asyncio.Future[None]] = {}  # disconnected, but still releasing state
        self.subscriptions = Subscriptions(broker, self, self._router)
        self.retained = RetainedMessages(broker.database, self, retained)
        self.messages = MessagePublisher(broker, self, self._router, self.retained, tap)
        self.parcel_of = self.messages.parcel_of
        self.asked = ConnectionAdmin(broker, self)

    def add_connection(self, attached: ConnectedSession, tags: frozenset[str]) -> None:
        """Add a connection, and notify the worker's watch."""
        super().add_connection(attached, tags)
        if self._broker.watch is not None:
            self._broker.watch.on_connect(self.name, attached.client, attached.connection)

    def remove_connection(self, attached: ConnectedSession, reason: CloseReason, timestamp: int) -> None:
        """Remove a closed connection, and notify the worker's watch."""
        super().remove_connection(attached, reason, timestamp)
        if self._broker.watch is not None:
            self._broker.watch.on_disconnect(self.name, attached.client, reason)

    # ---- sessions

    def set_stored_count(self, count: int) -> None:
        """Set the number of stored sessions from the database."""
        self._stored_count = count

    def count_dropped(self, count: int) -> None:
        """Count messages dropped from full queues."""
        self.dropped += count

    def count_stored_session(self) -> None:
        """Count a session whose row was created after its connection."""
        self._stored_count += 1

    @property
    def stored(self) -> int:
        """Number of stored sessions."""
        return self._stored_count

    async def get_last_contacts(self, clients: Sequence[str]) -> Mapping[str, LastContact]:
        """Return when clients last connected or disconnected, on any worker."""
        found = {client: seen for client in clients if (seen := self.find_last_contact(client)) is not None}
        missing = [client for client in clients if client not in self.live]
        if self._broker.is_alone or not missing:
            return found
        for row in await self._rows_of(missing):
            at, owner, known = row["seen_at"], row["owner"], found.get(row["client"])
            if at is None or (known is not None and (known.reason is None or known.at >= at)):
                continue
            found[row["client"]] = LastContact(
                at, CloseReason(row["gone"] or CloseReason.LOST) if owner is None else None
            )
        away = tuple([client for client in missing if client not in found or found[client].reason is not None])
        for answer in await self._broker.ask_others(LastSeenRequest(self.name, away)) if away else ():
            for client, (at, reason) in answer.clients.items():
                if client not in found or at > found[client].at:
                    found[client] = LastContact(at, None if reason is None else CloseReason(reason))
        return found

    async def connected(self, limit: int) -> Sequence[str] | None:
        """Return the clients connected to any worker, unordered; None if there are more than `most`."""
        if self._broker.is_alone:
            return None if len(self.live) > limit else list(self.live)
        rows = await self._database.all(store.OWNED_SOME, space=self.name, limit=limit + 1)  # one row per connection
        return None if len(rows) > limit else [row["client"] for row in rows]

    async def _rows_of(self, clients: Sequence[str]) -> Sequence[Row]:
        """Return the rows of these clients only; a range scan could read many others."""
        some = [
            list_parameters(clients[first : first + MAX_LIST_VALUES])
            for first in range(0, len(clients), MAX_LIST_VALUES)
        ]
        each = [await self._database.all(store.SEEN, space=self.name, **names) for names in some]
        return [row for rows in each for row in rows]

    async def owner(self, client: str) -> str | None:
        """Return the worker to which a client is connected."""
        if client in self.live:
            return self.worker
        if self._broker.is_alone:
            return None
        row = await self._database.one(store.OWNER, space=self.name, client=client)
        return None if row is None else row["owner"]

    def principal_of(self, client: str) -> str:
        """Return the principal of a client's session, or the client ID if it is unknown."""
        attached = self.live.get(client)
        return (attached.principal if attached is not None else self._shares.owner(client)) or client

    def is_arriving(self, client: str) -> bool:
        """Return whether a connection is about to take over this session."""
        return client in self._arriving

    async def record(self, client: str) -> SessionRecord | None:
        """Return the stored record of a session, or None."""
        row = await self._database.one(store.RECORD, space=self.name, client=client)
        return None if row is None else record_of(row)

    async def connect(self, arrival: Arrival) -> ConnectedSession:
        """Open a client's session and close its earlier connection; nothing is delivered until `resume`.

        Raise `TooManySessionsError`, or `UnavailableError`.
        """
        await self._broker.wait_until_fresh()
        # Close the previous connection first: its messages may be in flight to this very session.
        claims = self._close_current(arrival)
        self._latest[arrival.client] = arrival
        try:
            await self.messages.until_safe(arrival.client)
            await self._broker.appends.wait_for_held_back(self, arrival.client)
            return await self._connect_alone(arrival, claims)
        except BaseException:
            if claims:
                self.spawn(self._release_each(claims))
            raise
        finally:
            if self._latest.get(arrival.client) is arrival:
                del self._latest[arrival.client]

    def _close_current(self, arrival: Arrival) -> list[ConnectedSession]:
        """Close the connection that holds the session, and return it if it exists."""
        old = self._take_over(arrival.client, clean=arrival.clean_start)
        return [] if old is None else [old]

    async def _connect_alone(self, arrival: Arrival, claims: list[ConnectedSession]) -> ConnectedSession:
        """Open the session in its current state; retry after a conflicting write.

        `claims` are closed connections whose sessions are released in order if this fails.
        """
        async with self._arriving.lock(arrival.client):
            if self._latest.get(arrival.client, arrival) is not arrival:
                raise SessionTakenError(client=arrival.client)  # a newer client would end it at once
            claims += self._close_current(arrival)  # a faster one: an unanswered claim may have ended it
            is_known = bool(self._shares.owner(arrival.client))
            for _ in range(_ATTEMPTS):
                is_connected = False
                with contextlib.suppress(ChangedMeanwhileError):
                    try:
                        attached = await self._connect(arrival, claims)
                        is_connected = True
                        return attached
                    finally:  # also if the client has gone
                        if not is_connected and not is_known:
                            self._shares.remove(arrival.client)
                self._broker.appends.forget(self, arrival.client)
        raise SessionTakenError(client=arrival.client)

    async def _connect(self, arrival: Arrival, claims: list[ConnectedSession]) -> ConnectedSession:
        client, now = arrival.client, self.now()
        record = await self.record(client)
        goes_on = record is not None and not arrival.clean_start and record.goes_on(now, self._broker.since())
        # Clean start alone decides whether a session continues; one that ends with this connection keeps its rows until
        # then.
        keeps, is_alone = arrival.expiry_s > 0 or goes_on, self._broker.is_alone
        if record is not None and record.owner not in {None, self.worker} and not is_alone:
            await self._broker.vacate(self, client, record, ends=not goes_on)
            raise ChangedMeanwhileError(what="The session")
        if keeps:
            await self._make_room(client, record, arrival.principal)
        old = claims[-1] if claims else None
        outgoing = self._outgoing(arrival, record, old, goes_on=goes_on) if keeps and self.rules.routes else None
        if record is not None and not (goes_on and keeps):
            gone = await self.subscriptions.stored(client)
            if not await delete_most_of_queue(self._database, self.name, client, record.epoch, self._broker.deleting):
                raise ChangedMeanwhileError(what="The session")
        else:
            gone = {}
        name: dict[str, Any] = {"space": self.name, "client": client}
        changes = Changes()
        epoch, is_claimed = 0 if record is None else record.epoch, False
        if record is not None and not (goes_on and keeps):
            changes.run(store.UNSUBSCRIBE_ALL, **name).run(store.DROP_QUEUE, **name)
        if keeps or not is_alone:
            epoch, is_claimed = self._claim(changes, arrival, record, outgoing, goes_on=goes_on)
        elif record is not None:
            changes.run(store.DELETE, expect=1, **name, epoch=record.epoch)
            self._shares.remove(client)
        attached = ConnectedSession(
            self,
            client,
            arrival.connection,
            epoch=epoch,
            is_claimed=is_claimed,
            is_stored=keeps,
            session_present=goes_on,
            expiry_s=arrival.expiry_s,
            since=now,
            subscriptions={},
            outgoing=outgoing,
            will=arrival.will,
            principal=arrival.principal,
        )
        known = await self._write_claim(
            attached, changes, claims, goes_on=goes_on and keeps, is_known_elsewhere=bool(gone)
        )
        self._stored_count += is_claimed - (record is not None and not (keeps and not is_claimed))
        if record is not None:
            self._finish_previous(client, record, goes_on=goes_on)
        if gone:
            self.subscriptions.changed()
        attached.subscriptions = known
        attached.session_present = goes_on and (self.rules.routes or bool(known))
        attached.has_row = is_claimed or (record is not None and keeps)
        self.add_connection(attached, arrival.tags)
        return attached

    async def _write_claim(
        self,
        attached: ConnectedSession,
        changes: Changes,
        claims: list[ConnectedSession],
        *,
        goes_on: bool,
        is_known_elsewhere: bool,
    ) -> dict[str, Subscription]:
        """Write the takeover of a session; return the subscriptions that it resumes with."""
        try:
            if changes.writes:
                await self._database.commit(changes)
            # Subscriptions of the previous connection may have been in flight until now.
            known = await self.subscriptions.stored(attached.client) if goes_on else {}
            if known or is_known_elsewhere:  # others send to its old worker
                await self._broker.announce_shapes(self)
        except UnavailableError:
            claims.append(attached)  # or only the answer was lost: no other code would release it
            raise
        return known

    def _outgoing(
        self, arrival: Arrival, record: SessionRecord | None, old: ConnectedSession | None, *, goes_on: bool
    ) -> SendWindow:
        before = None if old is None else old.outgoing
        return session_ownership_columns.resumed_window(record, before, arrival.window, goes_on=goes_on)

    def _finish_previous(self, client: str, record: SessionRecord, *, goes_on: bool) -> None:
        """Complete the previous connection's pending work: its worker was killed, or its will is delayed."""
        if session_ownership_columns.will_is_due(record, self.worker, goes_on=goes_on):
            self._send_will(client, will_of(record.will))
        if session_ownership_columns.was_lost(record, self.worker):
            self.observer.lost(client, record.epoch)

    def _claim(
        self,
        changes: Changes,
        arrival: Arrival,
        record: SessionRecord | None,
        outgoing: SendWindow | None,
        *,
        goes_on: bool,
    ) -> tuple[int, bool]:
        """Add the changes that assign the session to this worker; return its epoch and whether it is stored."""
        may_skip = self._broker.is_alone and not self.rules.routes and arrival.will is None
        state = session_ownership_columns.claimed_columns(self.worker, arrival.will, arrival.expiry_s, self.now())
        if record is None:
            if may_skip:
                return 0, False  # the first subscription adds the row
            epoch = self._next_epoch(self.now())  # greater than that of any dropped session of this name
            changes.merge(self.condition(arrival.client))
            changes.run(store.ADD, space=self.name, client=arrival.client, epoch=epoch, tail=0, **state)
            return epoch, True
        if may_skip and goes_on and record.expires_at is None and record.owner is None:
            return record.epoch, False
        if outgoing is not None:
            state |= session_ownership_columns.positions(outgoing)
        epoch = self._next_epoch(record.epoch + 1)
        name: dict[str, Any] = {"key_space": self.name, "key_client": arrival.client}
        seen: dict[str, Any] = {"key_epoch": record.epoch, "key_tail": record.tail}
        changes.run(store.CLAIM, expect=1, epoch=epoch, **state, **name, **seen)
        return epoch, True

    def condition(self, client: str) -> Changes:
        """Return the write guard for a commit that could recreate the session of a deleted client."""
        return Changes() if self._condition is None else self._condition(client)

    def _next_epoch(self, least: int) -> int:
        """Return an epoch that this worker has not used.

        Sessions that are not stored are released by epoch as well.
        """
        self._latest_epoch = max(self._latest_epoch + 1, least)
        return self._latest_epoch

    async def _make_room(self, client: str, record: SessionRecord | None, principal: str) -> None:
        """Delete the longest disconnected session if the limit is reached, and count the new one.

        A principal that has used its quota is rejected instead; sessions of other principals are not deleted.
        """
        if record is not None:
            self._count(client, principal)
            return
        limit, is_full = self.rules.max_sessions, self._stored_count >= self.rules.max_sessions
        rows = await self._database.all(store.NEXT_TO_EXPIRE, space=self.name, limit=1) if is_full else []
        if is_full and not rows:
            raise TooManySessionsError(retry_after_s=60, limit=str(limit), value=str(2 * limit))
        most = self.rules.max_sessions_per_key
        if principal and not self._shares.has_room(principal, limit, most):
            raise SessionShareUsedError(retry_after_s=60, **bounds_of_sessions(limit, most))
        self._count(client, principal)
        if is_full:
            await self.forget(rows[0]["client"], record_of(rows[0]))

    def _count(self, client: str, principal: str) -> None:
        """Count a session for the principal that created it; a later takeover does not change this."""
        if principal:
            self._shares.add(client, principal)

    def _take_over(self, client: str, *, clean: bool) -> ConnectedSession | None:
        """End this worker's connection that owns the session, and return it."""
        old = self.live.get(client)
        if old is None:
            return None
        if old.will is not None and old.will.delay_s and old.is_stored and not clean:
            old.will = None  # [MQTT-3.1.3-9]
        self._remove(old, CloseReason.TAKEN_OVER, with_will=True)
        old.connection.end(CloseReason.TAKEN_OVER)
        return old

    async def release_for_takeover(self, client: str, *, ends: bool) -> None:
        """Release a session whose client is about to connect to another worker.

        Return when the release is complete.
        """
        old = self._take_over(client, clean=ends)
        if (leaving := self._leaving.get(client)) is not None:
            await asyncio.wait({leaving})
        await self.messages.until_safe(client)
        async with self._arriving.lock(client):
            if old is not None:
                try:
                    await old.connection.wait_released()
                    await self._release_now(old, None, 0)
                except UnavailableError:
                    if old.is_claimed:  # the caller may not retry, and no other code would release it
                        self.spawn(self._release(old, None, 0))
                    raise
                return
            row = await self._database.one(store.SESSION, space=self.name, client=client)
            if row is not None and row["owner"] == self.worker and client not in self.live:
                await self.free(client, record_of(row))  # its release has not succeeded yet
                await self.await_subscription_removal()

    def fenced(self, attached: ConnectedSession) -> None:
        """Handle a session taken over by another worker: no action of this connection counts anymore."""
        if not attached.is_over:
            self._remove(attached, CloseReason.TAKEN_OVER, with_will=False)
            attached.connection.end(CloseReason.TAKEN_OVER)

    def disconnect(
        self, attached: ConnectedSession, reason: CloseReason, *, with_will: bool, expiry_s: int | None = None
    ) -> None:
        """Handle the end of a connection; `expiry_s` is the session expiry from DISCONNECT, if present."""
        if attached.is_over:
            return
        will = attached.will if with_will else None
        if expiry_s is not None:
            attached.expiry_s = expiry_s
        delay_s = min(will.delay_s, attached.expiry_s) if will is not None and attached.is_stored else 0
        self._remove(attached, reason, with_will=with_will and not delay_s)
        if not attached.has_row and attached.client not in self._arriving:
            self._shares.remove(attached.client)  # no subscription and no state remains
        if attached.is_claimed:
            self.spawn(self._release(attached, will if delay_s else None, delay_s))

    def _remove(self, attached: ConnectedSession, reason: CloseReason, *, with_will: bool) -> None:
        """Remove a connection from memory, and report the disconnect."""
        attached.is_over = True
        self.remove_connection(attached, reason, self.now())
        self._broker.unsettled.discard(attached)
        if not attached.is_stored:
            for one in attached.subscriptions.values():
                self._router.remove(attached, one)
        if with_will and attached.will is not None:
            self._send_will(attached.client, attached.will, is_late=False)
        self.observer.disconnected(attached, reason)

    async def _release(self, attached: ConnectedSession, will: Will | None, delay_s: int) -> None:
        """Release a session before the client's next connection opens it.

        Retry while the database is unavailable.
        """
        await self._wait_released(attached)
        await self.messages.until_safe(attached.client)
        while True:
            async with self._arriving.lock(attached.client):
                try:
                    await self._release_now(attached, will, delay_s)
                except UnavailableError:
                    pass
                else:
                    return
            await self._broker.sleep(_RELEASE_AGAIN_S)

    async def _release_each(self, claims: Sequence[ConnectedSession]) -> None:
        """Release sessions in sequence; the locks of the first are released before the last is free."""
        for attached in claims:
            if attached.is_claimed:
                await self._release(attached, None, 0)

    async def _wait_released(self, attached: ConnectedSession) -> None:
        """Wait until a connection holds no locks; locks that cannot be released expire."""
        leaving = self._leaving[attached.client] = asyncio.ensure_future(attached.connection.wait_released())
        try:
            with contextlib.suppress(UnavailableError):
                await leaving
        finally:
            if self._leaving.get(attached.client) is leaving:
                del self._leaving[attached.client]

    async def _release_now(self, attached: ConnectedSession, will: Will | None, delay_s: int) -> None:
        now, outgoing, expiry_s = self.now(), attached.outgoing, attached.expiry_s
        if not expiry_s:
            await self.forget(attached.client, epoch=attached.epoch)
            return
        state = session_ownership_columns.released_columns(expiry_s, will, delay_s, self.reason(attached.client), now)
        changes = Changes()
        if outgoing is not None:
            state |= session_ownership_columns.positions(outgoing)
            changes.run(store.DROP_SETTLED, space=self.name, client=attached.client, upto=outgoing.cursor)
        changes.run(store.RELEASE, expect=1, **state, **attached.fence)
        with contextlib.suppress(ChangedMeanwhileError):  # already owned by another
            await self._database.commit(changes)
        self._broker.due_at(state["expires_at"])
        self._broker.due_at(state["will_at"])
        if any(one.share for one in attached.subscriptions.values()):  # other members now come first
            self.subscriptions.changed()
            await self._broker.announce_shapes(self)

    async def forget(self, client: str, record: SessionRecord | None = None, *, epoch: int | None = None) -> bool:
        """Delete a session as it was read, with everything that it owns; return False if it changed since."""
        known = await self.subscriptions.stored(client)
        if not await self._delete_session(client, record, epoch=epoch):
            return False
        if known:
            await self.await_subscription_removal()
        return True

    async def await_subscription_removal(self) -> None:
        """Wait until no worker uses cached subscriptions that were deleted with their sessions."""
        self.subscriptions.changed()
        await self._broker.announce_shapes(self)

    async def _delete_session(self, client: str, record: SessionRecord | None, *, epoch: int | None = None) -> bool:
        """Delete a session as `forget` does, without announcing its subscriptions."""
        epoch = record.epoch if record is not None else epoch
        if epoch is not None and not await delete_most_of_queue(
            self._database, self.name, client, epoch, self._broker.deleting
        ):
            return False
        name: dict[str, Any] = {"space": self.name, "client": client}
        changes = Changes().run(store.DELETE, expect=1, epoch=epoch, **name)
        changes.run(store.UNSUBSCRIBE_ALL, **name).run(store.DROP_QUEUE, **name)
        try:
            await self._database.commit(changes)
        except ChangedMeanwhileError:
            return False
        self._stored_count -= 1
        self._shares.remove(client)
        self._broker.appends.forget(self, client)
        if record is not None:
            self._send_will(client, will_of(record.will))
        return True

    async def free_for_client(self, client: str, record: SessionRecord) -> None:
        """Free a session of a dead worker for its client, which is about to connect."""
        is_deleted = not record.expiry_s and bool(await self.subscriptions.stored(client))
        await self.free(client, record)
        if is_deleted:
            await self.await_subscription_removal()

    async def free(self, client: str, record: SessionRecord) -> None:
        """Free a session of a dead worker: its will becomes due and its expiry starts.

        The caller then calls `await_subscription_removal` once for all sessions.
        """
        now = self.now()
        will = will_of(record.will)
        delay_s = min(will.delay_s, record.expiry_s) if will is not None else 0
        name: dict[str, Any] = {"space": self.name, "client": client}
        if record.expiry_s:
            fence = {f"key_{key}": value for key, value in name.items()}
            fence |= {"key_epoch": record.epoch, "key_owner": record.owner}
            state = session_ownership_columns.freed_columns(record, delay_s, now)
            with contextlib.suppress(ChangedMeanwhileError):
                await self._database.commit(Changes().run(store.FREE, expect=1, **state, **fence))
                if will is not None and not delay_s:
                    self._send_will(client, will)
                self.observer.lost(client, record.epoch)
                self._broker.due_at(state["expires_at"])
        elif await self._delete_session(client, record):
            self.observer.lost(client, record.epoch)

    # ---- wills

    def _send_will(self, client: str, will: Will | None, *, is_late: bool = True) -> None:
        if will is not None and (waiting := self.observer.will(client, will, is_late=is_late)) is not None:
            # A session keeps its will until the will is stored elsewhere; until then it is neither resumed nor
            # released.
            self.spawn(self.messages.track_until(waiting, will.message))

    async def send_due_will(self, row: Row) -> None:
        """Publish a will after its delay, unless the client reconnected."""
        record = record_of(row)
        client = row["client"]
        name: dict[str, Any] = {"key_space": self.name, "key_client": client}
        seen: dict[str, Any] = {"key_epoch": record.epoch, "key_will_at": record.will_at}
        changes = Changes().run(store.WILL_SENT, expect=1, will=None, will_at=None, **name, **seen)
        with contextlib.suppress(ChangedMeanwhileError):
            await self._database.commit(changes)
            self._send_will(client, will_of(record.will))

    # ---- queues of stored sessions

    async def queued_after(self, client: str, after: int) -> list[tuple[int, BrokerMessage]]:
        """Return the queued messages after a position, with their positions, oldest first."""
        rows = await self._database.all(
            store.QUEUED_AFTER, space=self.name, client=client, after=after, limit=_QUEUE_ROWS
        )
        found: list[tuple[int, BrokerMessage]] = []
        for row in rows:
            body = row["body"] if row["body"] is not None else row["shared"]
            for number, message in enumerate(
                decode_messages(body) if body is not None else (), row["last"] - row["count"] + 1
            ):
                if number > after:
                    found.append((number, message))
        return found

    def settle_later(self, attached: ConnectedSession) -> None:
        """Record that a queue's cursor moved; it is written with the next commit or soon after."""
        self._broker.settle_later(attached)

    def is_unsettled(self, attached: ConnectedSession) -> bool:
        """Return whether the session's cursor moved since it was last written."""
        return attached in self._broker.unsettled

    def is_settled(self, attached: ConnectedSession) -> None:
        """Mark a connection as settled: its cursor is written."""
        self._broker.unsettled.discard(attached)


def will_of(body: bytes | None) -> Will | None:
    """Return the will of a column; None if it is unreadable, so that it does not keep a session forever."""
    try:
        return None if body is None else decode_will(body)
    except (msgspec.MsgspecError, ValueError):
        log.exception("broker.will_unreadable")
        return None


def record_of(row: Row) -> SessionRecord:
    """Return the session record of a row."""
    return SessionRecord(
        row["epoch"],
        row["owner"],
        row["expires_at"],
        row["expiry_s"],
        row["tail"],
        row["cursor"],
        row["sent"],
        row["will"],
        row["will_at"],
    )
