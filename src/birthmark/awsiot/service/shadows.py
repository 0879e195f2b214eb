"""Shadows: load, decide, commit, tell; whoever was faster makes us decide again.

What becomes of a shadow is told in the order of its versions: of the updates of one shadow one is made at a time, and
the next one begins when the messages of this one are handed on. An answer says that they are safe, too: whoever was
told of a change can count on everybody who subscribed.
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
from birthmark.broker.rules.quotas import Portions
from birthmark.clock import Clock, ClockStability
from birthmark.errors import ChangedMeanwhileError
from birthmark.store import Changes, Database, decided_again
from birthmark.store.pagination import Page, page_of

_ATTEMPTS = 8
_MICROS = 1_000_000
_MANY = 1_000_000


class _ShadowActor(NamedTuple):
    """Who changes a shadow: an operator, who is audited, or a device."""

    actor: str | None
    principal: str = ""


def topic_of(thing: str, name: str, rest: str) -> str:
    """Return a topic of a shadow."""
    named = f"/name/{name}" if name else ""
    return f"$aws/things/{thing}/shadow{named}/{rest}"


class ShadowService:
    """The shadows of all things, registered or not; one without a name is the thing's classic shadow."""

    def __init__(
        self, database: Database, clock: Clock, index: FleetIndex, audience: Callable[[], TopicPublisher]
    ) -> None:
        """`audience` hears what became of shadows."""
        self._database = database
        self._clock = clock
        self._steadiness = ClockStability(clock)
        self._turns: KeyedLock[tuple[ThingName, str]] = KeyedLock()
        self._unregistered = Portions()  # shadows of unregistered things, by creator
        self.updates = 0  # and deletions, so far
        self.audience = audience
        self._index = index

    def now(self) -> int:
        """Return the time in microseconds."""
        return self._clock.micros()

    async def get(self, thing: ThingName, name: str) -> Shadow:
        """Return a shadow. Raise `ShadowMissingError`."""
        return rules.existing((await self._read(thing, name))[0])

    async def names(self, thing: ThingName, after: str, size: int) -> Page[str]:
        """Return the names of a thing's named shadows, in order."""
        rows = await self._database.all(store.NAMES, thing=thing, after=after, limit=size + 1)
        names = [str(row["name"]) for row in rows]
        return page_of(names, size, names)

    async def update(
        self, thing: ThingName, name: str, request: wire.ShadowRequest, *, principal: str = "", actor: str | None = None
    ) -> bytes:
        """Make an update, and return its answer once that is told to everybody.

        An operator as the actor is audited; a device is counted by its `principal`. Raise `ShadowInvalidError`,
        `ShadowVersionError`, `ShadowTooLargeError`, `TooManyShadowsError`, `ShadowShareUsedError`.
        """
        update, token = rules.parse_update(request, Shadow(thing, name)), request.token
        async with self._turns.alone_with((thing, name)):
            at = self.now()
            before, after = await self._change(
                thing,
                name,
                lambda known: rules.updated(known, update, request.size, at),
                "awsiot.shadow_update",
                _ShadowActor(actor, principal),
            )
            answer = wire.update_json(after, update.patch, at, token)
            told = [(topic_of(thing, name, "update/accepted"), answer)]
            if self.audience().may_hear(topic := topic_of(thing, name, "update/documents")):
                told.append((topic, wire.documents_json(before, after, at, token)))
            if self.audience().may_hear(topic := topic_of(thing, name, "update/delta")):
                missing = wire.delta_json(after, at, token)
                told += [] if missing is None else [(topic, missing)]
            told_all = await self._hand_on(told)
        await told_all
        return answer

    async def delete(
        self, thing: ThingName, name: str, request: wire.ShadowRequest, *, actor: str | None = None
    ) -> bytes:
        """Delete a shadow, and return the answer once that is told to everybody. Raise `ShadowMissingError`."""
        async with self._turns.alone_with((thing, name)):
            at = self.now()
            before, _ = await self._change(
                thing, name, lambda known: rules.deleted(known, at), "awsiot.shadow_delete", _ShadowActor(actor)
            )
            answer = wire.deleted_json(before.version, at, request.token)
            told = await self._hand_on([(topic_of(thing, name, "delete/accepted"), answer)])
        await told
        return answer

    async def tell(self, topic: str, body: bytes) -> None:
        """Publish to whoever subscribed and may receive it; return when nobody misses it any more."""
        await (await self._hand_on([(topic, body)]))

    async def _hand_on(self, told: Sequence[tuple[str, bytes]]) -> asyncio.Future[None]:
        """Publish in this order; the future ends when the messages are as safe as they must be."""
        safe, done = until_done()
        if (
            waiting := self.audience().publish([BrokerMessage(topic, body, 1) for topic, body in told], done)
        ) is not None:
            await waiting
        return safe

    async def _read(self, thing: str, name: str) -> tuple[Shadow, int]:
        """Return a shadow, and how often its row was written; 0 without one."""
        row = await self._database.one(store.GET, thing=thing, name=name)
        if row is None:
            return Shadow(thing, name), 0
        return rules.remembered(store.shadow_of(row), self.now()), row["revision"]

    async def _check_room(self, wanted: Shadow) -> None:
        """Raise `TooManyShadowsError` where a thing may not have another shadow. The classic one always fits."""
        if not wanted.name or wanted.is_deleted:
            return
        since = wanted.at - rules.REMEMBERED_S * _MICROS
        if (row := await self._database.one(store.COUNT, thing=wanted.thing, since=since)) is not None:
            rules.check_room(wanted, row["total"] - row["deleted"], row["deleted"])

    async def _is_anybodys(self, thing: str, name: str, principal: str) -> bool:
        """Say whether a shadow that is to be made is of no registered thing. Raise where there is no room for it."""
        if (no_room := self._database.no_room()) is not None:
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
        """Return a shadow before and after."""

        async def change() -> tuple[Shadow, Shadow]:
            known, revision = await self._read(thing, name)
            made = decide(known)
            if known.is_deleted or not known.version:
                await self._check_room(made)
            is_anybodys = not revision and by.actor is None and await self._is_anybodys(thing, name, by.principal)
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

        return await decided_again(change, after=ChangedMeanwhileError, attempts=_ATTEMPTS)
