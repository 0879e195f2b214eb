"""Thing groups: names that many things stand under. Static ones, one beside the other, without policies."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from birthmark.awsiot.model import ThingGroup, ThingName, parse_group_properties
from birthmark.awsiot.service.base import AccountService
from birthmark.awsiot.service.things import Things
from birthmark.awsiot.store import registry as store
from birthmark.clock import Clock, Entropy, new_uuid
from birthmark.errors import ConflictError, InvalidRequestError, NotFoundError
from birthmark.store import Changes, Database, decided_again
from birthmark.store.paging import Page, page_of


class UnknownThingGroupError(NotFoundError):
    """No such group."""

    code = "awsiot.unknown_thing_group"
    message = "Thing group {group} not found"
    fix = "`aws iot create-thing-group --thing-group-name {group}` makes it; `aws iot list-thing-groups` lists them."
    group: str


class ThingGroupExistsError(ConflictError):
    """Create of a group that exists and is different."""

    code = "awsiot.thing_group_exists"
    message = "Thing group {group} already exists with different properties"
    fix = "`aws iot describe-thing-group --thing-group-name {group}` shows it; change it with update-thing-group."
    group: str


class ThingGroupVersionError(ConflictError):
    """The group changed since the caller read it."""

    code = "awsiot.thing_group_version"
    message = "The version of thing group {group} is not {expected}"
    cause = "Thing group {group} is at version {version}; the request expected {expected}."
    fix = "Repeat the change with the version it has: `aws iot describe-thing-group --thing-group-name {group}`"
    expected: object
    group: str
    version: int


class NestedThingGroupError(InvalidRequestError):
    """Groups in groups are not served."""

    code = "awsiot.thing_group_nested"
    message = "Thing group {group} cannot be below {parent}: groups stand beside each other here"
    fix = "Leave the parent out: `aws iot create-thing-group --thing-group-name {group}`"
    group: str
    parent: str


class ThingGroups(AccountService):
    """The groups of the registry."""

    def __init__(self, database: Database, clock: Clock, entropy: Entropy, things: Things) -> None:
        super().__init__(database, clock, entropy)
        self._things = things

    async def get(self, name: str) -> ThingGroup:
        """Return a group. Raise `UnknownThingGroupError`."""
        row = await self.database.one(store.GET_GROUP, name=name)
        if row is None:
            raise UnknownThingGroupError(group=name[:128])
        return store.GROUPS.of(row)

    async def create(
        self,
        name: ThingName,
        description: str | None,
        attributes: Mapping[str, str] | None,
        parent: str | None,
        *,
        actor: str,
    ) -> ThingGroup:
        """Make a group, or return the one that is there already and the same. Raise `ThingGroupExistsError`."""
        if parent is not None:
            raise NestedThingGroupError(group=name, parent=parent)
        properties = parse_group_properties(description, attributes)
        made = ThingGroup(name, new_uuid(self.entropy), properties, 1, self.clock.now())
        exists = ThingGroupExistsError(group=name)
        changes = Changes().run(store.ADD_GROUP, expect=1, otherwise=exists, **store.GROUPS.row(made))
        try:
            await self.database.commit(changes.audit(actor, "awsiot.thing_group_create", name))
        except ThingGroupExistsError:
            if (present := await self.get(name)).properties != properties:
                raise
            return present
        return made

    async def update(
        self,
        name: str,
        description: str | None,
        attributes: Mapping[str, str] | None,
        *,
        merge: bool,
        expected: int | None,
        actor: str,
    ) -> ThingGroup:
        """Change what a group is described by; attributes are replaced or merged. Raise `ThingGroupVersionError`."""

        async def decide() -> ThingGroup:
            group = await self._expected(name, expected)
            present = (group.properties.get("attributePayload") or {}).get("attributes") or {}
            wanted = {**present, **attributes} if merge and attributes is not None else attributes
            properties = parse_group_properties(description, wanted)
            made = replace(group, properties={**group.properties, **properties}, version=group.version + 1)
            row = store.GROUPS.row(made)
            seen: dict[str, Any] = {"key_name": name, "key_version": group.version}
            changes = Changes().run(
                store.REPLACE_GROUP, expect=1, properties=row["properties"], version=made.version, **seen
            )
            await self.database.commit(changes.audit(actor, "awsiot.thing_group_update", name))
            return made

        return await decided_again(decide)

    async def delete(self, name: str, expected: int | None, *, actor: str) -> None:
        """Remove a group; its things stay. One that is not there is removed already."""

        async def decide() -> None:
            try:
                group = await self._expected(name, expected)
            except UnknownThingGroupError:
                return
            changes = Changes().run(store.DELETE_GROUP, expect=1, name=name, version=group.version)
            changes.run(store.EMPTY_GROUP, thing_group=name)
            await self.database.commit(changes.audit(actor, "awsiot.thing_group_delete", name))

        await decided_again(decide)

    async def _expected(self, name: str, expected: int | None) -> ThingGroup:
        group = await self.get(name)
        if expected is not None and expected != group.version:
            raise ThingGroupVersionError(group=name, version=group.version, expected=expected)
        return group

    async def page(self, after: str, size: int, prefix: str) -> Page[ThingGroup]:
        """Return groups in order of name, those whose name begins so."""
        rows = await self.database.all(store.LIST_GROUPS, after=after, prefix=prefix, limit=size + 1)
        found = [store.GROUPS.of(row) for row in rows]
        return page_of(found, size, [each.name for each in found])

    async def add(self, group: str, thing: str, *, actor: str) -> None:
        """Put a thing into a group; one that is in it stays. Raise `UnknownThingError`, `UnknownThingGroupError`."""

        async def decide() -> None:
            await self._things.get(thing)
            await self.get(group)
            await self.database.commit(self.adding(group, thing, actor=actor))

        await decided_again(decide)

    def adding(self, group: str, thing: str, *, actor: str) -> Changes:
        """Return what puts a thing into a group, on the condition that both are there."""
        changes = Changes().run(store.THING_IS_THERE, expect=1, key_name=thing)
        changes.run(store.GROUP_IS_THERE, expect=1, key_name=group)
        changes.run(store.ADD_MEMBER, thing_group=group, thing=thing)
        return changes.audit(actor, "awsiot.thing_group_add", group, thing=thing)

    def removing(self, group: str, thing: str, *, actor: str) -> Changes:
        """Return what takes a thing out of a group."""
        changes = Changes().run(store.REMOVE_MEMBER, thing_group=group, thing=thing)
        return changes.audit(actor, "awsiot.thing_group_remove", group, thing=thing)

    async def remove(self, group: str, thing: str, *, actor: str) -> None:
        """Take a thing out of a group; one that is not in it is out already."""
        await self._things.get(thing)
        await self.get(group)
        await self.database.commit(self.removing(group, thing, actor=actor))

    async def groups_of(self, thing: str, after: str, size: int) -> Page[str]:
        """Return the groups of a thing. Raise `UnknownThingError`."""
        await self._things.get(thing)
        rows = await self.database.all(store.GROUPS_OF, thing=thing, after=after, limit=size + 1)
        found = [str(row["thing_group"]) for row in rows]
        return page_of(found, size, found)

    async def things_in(self, group: str, after: str, size: int) -> Page[str]:
        """Return the things of a group. Raise `UnknownThingGroupError`."""
        await self.get(group)
        rows = await self.database.all(store.THINGS_IN, thing_group=group, after=after, limit=size + 1)
        found = [str(row["thing"]) for row in rows]
        return page_of(found, size, found)
