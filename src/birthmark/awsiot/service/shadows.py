"""Shadow service: load, decide, commit, notify; a write conflict repeats the decision.

Notifications follow the order of a shadow's versions. Updates of one shadow run one at a time; the next starts once the
messages of the previous one are published. A response also confirms that these messages are stored, so the client can
rely on all subscribers to receive them.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from birthmark.awsiot.model import Shadow, ThingName
from birthmark.awsiot.ports import TopicPublisher
from birthmark.awsiot.rules import shadows as rules
from birthmark.awsiot.service.fleet_index import FleetIndex
from birthmark.awsiot.store import registry as registry_store
from birthmark.awsiot.store import shadows as store
from birthmark.awsiot.wire import shadows as wire
from birthmark.broker.keyed_lock import KeyedLock, until_done
from birthmark.broker.model import BrokerMessage
from birthmark.broker.rules.principal_quotas import Portions
from birthmark.clock_and_entropy import Clock, ClockStability
from birthmark.errors import ChangedMeanwhileError
from birthmark.store import Changes, Database, retry_on_conflict
from birthmark.store.pagination import Page, page_of

_ATTEMPTS = 8
_MICROS = 1_000_000
_MANY = 1_000_000


class _ShadowActor(NamedTuple):
    """Actor of a shadow change: an audited operator, or a device."""

    actor: str | None
    principal: str = ""


def topic_of(thing: str, name: str, rest: str) -> str:
    """Return a topic of a shadow."""
    named = f"/name/{name}" if name else ""
    return f"$aws/things/{thing}/shadow{named}/{rest}"


class ShadowService:
    """Shadows of all things, registered or not; the classic shadow has no name."""

    def __init__(
        self, database: Database, clock: Clock, index: FleetIndex, audience: Callable[[], TopicPublisher]
    ) -> None:
        """Create the service; `audience` publishes its notifications."""
        self._database = database
        self._clock = clock
        self._steadiness = ClockStability(clock)
        self._turns: KeyedLock[tuple[ThingName, str]] = KeyedLock()
        self._unregistered = Portions()  # shadows of unregistered things, by creator
        self.updates = 0  # and deletions so far
        self.audience = audience
        self._index = index

    def now(self) -> int:
        """Return the time in microseconds."""
        return self._clock.micros()

    async def get(self, thing: ThingName, name: str) -> Shadow:
        """Return a shadow. Raise `ShadowMissingError`."""
        return rules.get_existing((await self._read(thing, name))[0])

    async def names(self, thing: ThingName, after: str, size: int) -> Page[str]:
        """Return the names of a thing's named shadows, in order."""
        rows = await self._database.all(store.NAMES, thing=thing, after=after, limit=size + 1)
        names = [str(row["name"]) for row in rows]
        return page_of(names, size, names)

    async def update(
        self, thing: ThingName, name: str, request: wire.ShadowRequest, *, principal: str = "", actor: str | None = None
    ) -> bytes:
        """Update a shadow, and return the response once all notifications are stored.

        An operator as the actor is audited; a device is counted by its `principal`. Raise `ShadowInvalidError`,
        `ShadowVersionError`, `ShadowTooLargeError`, `TooManyShadowsError`, `ShadowShareUsedError`.
        """
        update, token = rules.parse_update(request, Shadow(thing, name)), request.token
        async with self._turns.lock((thing, name)):
            at = self.now()
            before, after = await self._change(
                thing,
                name,
                lambda known: rules.apply_update(known, update, request.size, at),
                "awsiot.shadow_update",
                _ShadowActor(actor, principal),
            )
            answer = wire.update_json(after, update.patch, at, token)
            told = [(topic_of(thing, name, "update/accepted"), answer)]
            if self.audience().may_have_subscribers(topic := topic_of(thing, name, "update/documents")):
                told.append((topic, wire.documents_json(before, after, at, token)))
            if self.audience().may_have_subscribers(topic := topic_of(thing, name, "update/delta")):
                missing = wire.delta_json(after, at, token)
                told += [] if missing is None else [(topic, missing)]
            told_all = await self._hand_on(told)
        await told_all
        return answer

    async def delete(
        self, thing: ThingName, name: str, request: wire.ShadowRequest, *, actor: str | None = None
    ) -> bytes:
        """Delete a shadow, and return the response once all notifications are stored.

        Raise `ShadowMissingError`.
        """
        async with self._turns.lock((thing, name)):
            at = self.now()
            before, _ = await self._change(
                thing, name, lambda known: rules.deleted(known, at), "awsiot.shadow_delete", _ShadowActor(actor)
            )
            answer = wire.deleted_json(before.version, at, request.token)
            told = await self._hand_on([(topic_of(thing, name, "delete/accepted"), answer)])
        await told
        return answer

    async def tell(self, topic: str, body: bytes) -> None:
        """Publish to permitted subscribers; return once the messages are stored."""
        await (await self._hand_on([(topic, body)]))

    async def _hand_on(self, told: Sequence[tuple[str, bytes]]) -> asyncio.Future[None]:
        """Publish in this order; the future completes when the messages are stored."""
        safe, done = until_done()
        if (
            waiting := self.audience().publish([BrokerMessage(topic, body, 1) for topic, body in told], done)
        ) is not None:
            await waiting
        return safe

    async def _read(self, thing: str, name: str) -> tuple[Shadow, int]:
        """Return a shadow and the revision of its row; 0 without a row."""
        row = await self._database.one(store.GET, thing=thing, name=name)
        if row is None:
            return Shadow(thing, name), 0
        return rules.drop_expired_version(store.shadow_of(row), self.now()), row["revision"]

    async def _check_room(self, shadow: Shadow) -> None:
        """Raise `TooManyShadowsError` if a thing cannot have another shadow.

        The classic one is always allowed.
        """
        if not shadow.name or shadow.is_deleted:
            return
        since = shadow.at - rules.REMEMBERED_S * _MICROS
        if (row := await self._database.one(store.COUNT, thing=shadow.thing, since=since)) is not None:
            rules.check_room(shadow, row["total"] - row["deleted"], row["deleted"])

    async def _is_unregistered(self, thing: str, name: str, principal: str) -> bool:
        """Return whether a new shadow belongs to no registered thing. Raise if a quota is exceeded."""
        if (no_room := self._database.find_disk_full_error()) is not None:
            raise no_room
        if await self._database.one(registry_store.GET_THING, name=thing) is not None:
            return False
        is_known = self._unregistered.owner(f"{thing}\0{name}") != ""
        if not is_known and not self._unregistered.has_room(principal, _MANY, rules.MAX_UNREGISTERED):
            raise rules.ShadowShareUsedError(principal=principal, thing=thing)
        return True

    async def _change(
        self, thing: str, name: str, decide: Callable[[Shadow], Shadow], action: str, by: _ShadowActor
    ) -> tuple[Shadow, Shadow]:
        """Change a shadow, and return it before and after the change."""

        async def change() -> tuple[Shadow, Shadow]:
            known, revision = await self._read(thing, name)
            made = decide(known)
            if known.is_deleted or not known.version:
                await self._check_room(made)
            is_anybodys = not revision and by.actor is None and await self._is_unregistered(thing, name, by.principal)
            values = store.shadow_row(made, revision + 1)
            changes = Changes()
            if revision:
                seen: dict[str, Any] = {"key_thing": thing, "key_name": name, "key_revision": revision}
                changes.run(store.CHANGE, expect=1, **values, **seen)
            else:
                changes.run(store.ADD, expect=1, thing=thing, name=name, **values)
            changes.merge(await self._index.of_shadow(made))
            if made.is_deleted and self._steadiness.is_steady():
                changes.run(store.FORGET, before=made.at - rules.REMEMBERED_S * _MICROS)
            if by.actor is not None:
                changes.audit(by.actor, action, thing, name=name)
            await self._database.commit(changes)
            self.updates += 1
            if is_anybodys:
                self._unregistered.add(f"{thing}\0{name}", by.principal)
            return known, made

        return await retry_on_conflict(change, after=ChangedMeanwhileError, attempts=_ATTEMPTS)
