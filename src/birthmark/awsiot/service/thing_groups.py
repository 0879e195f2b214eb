"""Thing groups: a hierarchy of groups; policies and jobs of a group apply to all its descendants.

A group never gets a new parent, and a group with child groups cannot be deleted. Its list of ancestors is therefore
written once, when it is created.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from birthmark.awsiot.domain_events import ThingChanged, ThingGroupChanged
from birthmark.awsiot.model import Thing, ThingGroup, ThingName, parse_group_properties, target_of_group
from birthmark.awsiot.rules.policy import are_of_one_device
from birthmark.awsiot.service.base import RegistryService
from birthmark.awsiot.service.fleet_index import IndexNotReadyError, SearchTooBroadError
from birthmark.awsiot.service.tags import NO_TAGS, Tags, has_same_tags, tag_deletes, written
from birthmark.awsiot.service.things import Things
from birthmark.awsiot.store import policies as policy_store
from birthmark.awsiot.store import registry as store
from birthmark.awsiot.wire.index_query import AllTerms, FieldEquals, Query, SearchIndex, parse_query
from birthmark.clock_and_entropy import new_uuid
from birthmark.errors import ConflictError, InvalidRequestError, NotFoundError, PolicyError
from birthmark.store import Changes, retry_on_conflict
from birthmark.store.pagination import Page, page_of

MAX_DEPTH = 7
"""Maximum depth of the group hierarchy, including the root group."""
MAX_DYNAMIC = 100
MAX_GROUPS = 10
"""Maximum number of static groups per thing."""


class UnknownThingGroupError(NotFoundError):
    """The thing group does not exist."""

    code = "awsiot.unknown_thing_group"
    message = "Thing group {group} not found"
    fix = (
        "Create the thing group: `aws iot create-thing-group --thing-group-name {group}`. To list the existing thing "
        "groups: `aws iot list-thing-groups`."
    )
    group: str


class ThingGroupExistsError(ConflictError):
    """A different thing group with this name exists already."""

    code = "awsiot.thing_group_exists"
    message = "Thing Group {group} already exists in current account with different properties"
    fix = (
        "To show the existing thing group: `aws iot describe-thing-group --thing-group-name {group}`. To change its "
        "properties, use update-thing-group."
    )
    group: str


class ThingGroupVersionError(ConflictError):
    """The thing group has changed since it was read."""

    code = "awsiot.thing_group_version"
    message = "The version of thing group {group} is not {expected}"
    cause = "Thing group {group} is at version {version}; the request expected {expected}."
    fix = (
        "Repeat the change with the current version of the thing group. To show the current version: `aws iot "
        "describe-thing-group --thing-group-name {group}`"
    )
    expected: object
    group: str
    version: int


class ThingGroupDepthError(InvalidRequestError):
    """The thing group hierarchy has the maximum depth."""

    code = "awsiot.thing_group_depth"
    message = "Thing group {group} cannot be a child of {parent}: the maximum depth is seven"
    fix = (
        "Use a parent closer to the root. To show the parent's hierarchy: `aws iot describe-thing-group "
        "--thing-group-name {parent}`"
    )
    group: str
    parent: str


class ThingGroupInUseError(InvalidRequestError):
    """The thing group has child groups."""

    code = "awsiot.thing_group_in_use"
    message = "Cannot delete thing group {group} when there are still child groups attached to it"
    fix = (
        "Delete the child groups first: `aws iot list-thing-groups --parent-group {group} --no-recursive --query "
        '"thingGroups[].groupName" --output text | xargs -rn1 aws iot delete-thing-group --thing-group-name`'
    )
    group: str


class DynamicGroupError(InvalidRequestError):
    """A dynamic thing group has no manual members, children or policies."""

    code = "awsiot.thing_group_dynamic"
    message = "Thing group {group} is dynamic: a query selects its things"
    fix = (
        "Use a static group, or change the query of the dynamic group. To show the query: `aws iot "
        "describe-thing-group --thing-group-name {group} --query queryString`"
    )
    group: str


class StaticGroupError(InvalidRequestError):
    """The thing group is not dynamic."""

    code = "awsiot.thing_group_static"
    message = "Thing group {group} is not dynamic"
    fix = (
        "For a static group, use update-thing-group or delete-thing-group. To show the group: `aws iot "
        "describe-thing-group --thing-group-name {group}`"
    )
    group: str


class TooManyDynamicGroupsError(PolicyError):
    """The account has the maximum number of dynamic thing groups."""

    code = "awsiot.dynamic_group_limit"
    message = "The account has 100 dynamic thing groups, the maximum"
    fix = (
        "Delete a dynamic thing group first. To print the parameters of the command: `aws iot "
        "delete-dynamic-thing-group --generate-cli-skeleton`"
    )


class TooManyThingGroupsError(PolicyError):
    """The thing would be in more than 10 groups."""

    code = "awsiot.thing_group_limit"
    message = "Thing {thing} would be in more than 10 groups"
    fix = (
        "Remove the thing from a group first. To list the thing's groups: `aws iot list-thing-groups-for-thing "
        "--thing-name {thing}`"
    )
    thing: str


class ThingGroups(RegistryService):
    """The groups of the registry."""

    def __init__(self, things: Things) -> None:
        super().__init__(things.database, things.clock, things.entropy, things.announcer, things.index)
        self._things = things

    async def get(self, name: str) -> ThingGroup:
        """Return a group. Raise `UnknownThingGroupError`."""
        row = await self.database.one(store.GET_GROUP, name=name)
        if row is None:
            raise UnknownThingGroupError(group=name[:128])
        return store.GROUPS.of(row)

    async def line(self, name: str) -> Sequence[str]:
        """Return the ancestors of a group, root first."""
        rows = await self.database.all(store.LINE_OF, thing_group=name)
        return [row["ancestor"] for row in rows if row["distance"]]

    async def create(
        self,
        name: ThingName,
        description: str | None,
        attributes: Mapping[str, str] | None,
        parent: str | None,
        *,
        query: str | None = None,
        tags: Tags = NO_TAGS,
        actor: str,
    ) -> ThingGroup:
        """Create a group, or return an identical existing one. Raise `ThingGroupExistsError`."""
        properties = parse_group_properties(description, attributes)

        async def decide() -> ThingGroup:
            made = ThingGroup(name, new_uuid(self.entropy), properties, 1, self.clock.now(), parent, query)
            changes = Changes()
            line = await self._get_ancestors_below(changes, name, parent)
            if query is not None:
                full, turn = TooManyDynamicGroupsError(), "events"  # any row that all these changes share
                changes.run(store.DYNAMIC_TURN, expect=1, key_name=turn)
                changes.run(store.MAY_BE_DYNAMIC, expect=1, otherwise=full, key_name=turn, most=MAX_DYNAMIC)
            exists = ThingGroupExistsError(group=name)
            changes.run(store.ADD_GROUP, expect=1, otherwise=exists, **store.GROUPS.row(made))
            for distance, ancestor in enumerate((name, *reversed(line))):
                changes.run(store.ADD_LINE, thing_group=name, ancestor=ancestor, distance=distance)
            changes.merge(written("thinggroup", name, tags)).merge(await self.index.of_group(made))
            try:
                await self.database.commit(changes.audit(actor, "awsiot.thing_group_create", name))
            except ThingGroupExistsError:
                present = await self.get(name)
                known = present.properties, present.parent, present.query
                if known != (properties, parent, query) or not await has_same_tags(
                    self.database, "thinggroup", name, tags
                ):
                    raise
                return present
            await self._tell("created", made, line)
            return made

        return await retry_on_conflict(decide)

    async def _get_ancestors_below(self, changes: Changes, name: str, parent: str | None) -> Sequence[str]:
        """Return the ancestors of a new group, root first.

        `changes` then requires that the parent still exists. Raise `DynamicGroupError` or `ThingGroupDepthError` if the
        parent cannot have children.
        """
        if parent is None:
            return ()
        above = await self.get(parent)
        if above.query is not None:
            raise DynamicGroupError(group=parent)
        line = (*await self.line(parent), parent)
        if len(line) >= MAX_DEPTH:
            raise ThingGroupDepthError(group=name, parent=parent)
        changes.run(store.GROUP_IS_SAME, expect=1, key_name=parent, key_group_id=above.group_id)
        return line

    async def update(
        self,
        name: str,
        description: str | None,
        attributes: Mapping[str, str] | None,
        *,
        merge: bool,
        expected: int | None,
        query: str | None = None,
        actor: str,
    ) -> ThingGroup:
        """Update the description and attributes of a group.

        `merge` adds attributes instead of replacing them.

        Raise `ThingGroupVersionError`.
        """

        async def decide() -> ThingGroup:
            group = await self._expected(name, expected)
            present = (group.properties.get("attributePayload") or {}).get("attributes") or {}
            wanted = {**present, **attributes} if merge and attributes is not None else attributes
            properties = parse_group_properties(description, wanted)
            made = replace(
                group,
                properties={**group.properties, **properties},
                version=group.version + 1,
                query=group.query if query is None else query,
            )
            row = store.GROUPS.row(made)
            seen: dict[str, Any] = {"key_name": name, "key_version": group.version}
            new = {column: row[column] for column in ("properties", "version", "query")}
            changes = Changes().run(store.REPLACE_GROUP, expect=1, **new, **seen)
            changes.merge(await self.index.of_group(made))
            await self.database.commit(changes.audit(actor, "awsiot.thing_group_update", name))
            await self._tell("updated", made, await self.line(name))
            return made

        return await retry_on_conflict(decide)

    async def delete(self, name: str, expected: int | None, *, actor: str) -> None:
        """Delete a group and its policy attachments; its things remain. A missing group is ignored.

        Raise `ThingGroupInUseError` if it has child groups.
        """

        async def decide() -> None:
            try:
                group = await self._expected(name, expected)
            except UnknownThingGroupError:
                return
            if await self.database.one(store.ONE_CHILD, parent=name) is not None:
                raise ThingGroupInUseError(group=name)
            line = await self.line(name)
            changes = Changes().run(store.GROUP_IS_THERE, expect=1, key_name=name)
            changes.run(store.DELETE_GROUP, expect=1, name=name, version=group.version)
            changes.run(store.EMPTY_GROUP, thing_group=name).run(store.DROP_LINES, thing_group=name)
            changes.run(policy_store.DETACH_ALL, target=target_of_group(name)).merge(tag_deletes("thinggroup", name))
            changes.merge(await self.index.without_group(name))
            changes.audit(actor, "awsiot.thing_group_delete", name)
            await self.database.commit(changes.event(ThingGroupChanged(name)))
            await self._tell("deleted", group, line)

        await retry_on_conflict(decide)

    async def _expected(self, name: str, expected: int | None) -> ThingGroup:
        group = await self.get(name)
        if expected is not None and expected != group.version:
            raise ThingGroupVersionError(group=name, version=group.version, expected=expected)
        return group

    async def page(
        self, after: str, size: int, prefix: str, *, parent: str | None = None, recursive: bool = True
    ) -> Page[ThingGroup]:
        """Return groups ordered by name and filtered by name prefix.

        `parent` selects its descendants, or only its direct children without `recursive`.
        """
        if parent is not None:
            await self.get(parent)
        query = {
            (False, True): store.LIST_GROUPS,
            (False, False): store.LIST_UPPERMOST,
            (True, True): store.LIST_BELOW,
            (True, False): store.LIST_CHILDREN,
        }[parent is not None, recursive]
        rows = await self.database.all(query, after=after, prefix=prefix, parent=parent, limit=size + 1)
        found = [store.GROUPS.of(row) for row in rows]
        return page_of(found, size, [each.name for each in found])

    async def add(self, group: str, thing: str, *, actor: str) -> None:
        """Add a thing to a group; existing membership is kept.

        Raise `UnknownThingError`, `UnknownThingGroupError`.
        """
        await self._change(thing, (group,), (), actor=actor)

    async def remove(self, group: str, thing: str, *, actor: str) -> None:
        """Remove a thing from a group; a thing that is not a member is ignored."""
        await self._change(thing, (), (group,), actor=actor)

    async def change_membership(self, thing: str, into: Sequence[str], out_of: Sequence[str], *, actor: str) -> None:
        """Add a thing to groups and remove it from others in one commit. Raise the same errors as `add`."""
        await self._change(thing, into, out_of, actor=actor)

    async def _change(self, thing: str, into: Sequence[str], out_of: Sequence[str], *, actor: str) -> None:
        async def decide() -> None:
            known = await self._things.get(thing)
            groups = await self.changeable(into, out_of)
            changes = await self.membership_changes(known.name, into, out_of, actor=actor)
            await self.database.commit(changes.event(ThingChanged(known.name)))
            await self.publish_membership_events(known, groups, into, out_of)

        await retry_on_conflict(decide)

    async def changeable(self, into: Sequence[str], out_of: Sequence[str]) -> Mapping[str, ThingGroup]:
        """Return static groups by name.

        Raise `UnknownThingGroupError`, or `DynamicGroupError` for a dynamic group.
        """
        groups = {name: await self.get(name) for name in (*into, *out_of)}
        for name, group in groups.items():
            if group.query is not None:
                raise DynamicGroupError(group=name)
        return groups

    async def membership_changes(
        self, thing: str, into: Sequence[str], out_of: Sequence[str], *, actor: str
    ) -> Changes:
        """Return the changes that add a thing to groups and remove it from others.

        They require the groups to exist.
        """
        changes = Changes().run(store.THING_IS_THERE, expect=1, key_name=thing)
        for name in sorted({*into}):  # name order, the same for all writers
            changes.run(store.GROUP_IS_THERE, expect=1, key_name=name)
        for name in out_of:
            changes.run(store.REMOVE_MEMBER, thing_group=name, thing=thing)
            changes.audit(actor, "awsiot.thing_group_remove", name, thing=thing)
        for name in into:
            changes.run(store.ADD_MEMBER, thing_group=name, thing=thing, joined_at=self.clock.micros())
            documents = [row["document"] for row in await self.database.all(store.DOCUMENTS_ABOVE, thing_group=name)]
            wide = {} if are_of_one_device(documents) else {"wide": True}
            changes.audit(actor, "awsiot.thing_group_add", name, thing=thing, **wide)
        if into:
            full = TooManyThingGroupsError(thing=thing)
            changes.run(store.MAY_JOIN, expect=1, otherwise=full, key_name=thing, most=MAX_GROUPS)
        return changes.merge(await self.index.of_membership(thing, into, out_of))

    async def publish_membership_events(
        self, thing: Thing, groups: Mapping[str, ThingGroup], into: Sequence[str], out_of: Sequence[str]
    ) -> None:
        """Publish the membership events of a thing."""
        for operation, names in (("REMOVED", out_of), ("ADDED", into)):
            for name in names:
                await self.announcer.tell(
                    "THING_GROUP_MEMBERSHIP",
                    f"thingGroupMembership/thingGroup/{name}/thing/{thing.name}/{operation.lower()}",
                    eventType="THING_GROUP_MEMBERSHIP_EVENT",
                    operation=operation,
                    thingId=thing.thing_id,
                    groupId=groups[name].group_id,
                    membershipId=f"{thing.thing_id}.{groups[name].group_id}",
                )

    async def groups_of(self, thing: str, after: str, size: int) -> Page[str]:
        """Return the groups of a thing, including dynamic groups. Raise `UnknownThingError`."""
        await self._things.get(thing)
        rows = await self.database.all(store.GROUPS_OF, thing=thing, after=after, limit=size + 1)
        dynamic = [name for name in await self._dynamic_of(thing) if name > after]
        found = sorted([*(str(row["thing_group"]) for row in rows), *dynamic])[: size + 1]
        return page_of(found, size, found)

    async def _dynamic_of(self, thing: str) -> Sequence[str]:
        """Return the dynamic groups whose query matches a thing; empty while the index is not ready."""
        found = []
        for row in await self.database.all(store.DYNAMIC_GROUPS, after="", limit=MAX_DYNAMIC):
            with contextlib.suppress(IndexNotReadyError, SearchTooBroadError):
                query = AllTerms((FieldEquals("thingName", thing), _query_of(store.GROUPS.of(row))))
                if (await self.index.search(SearchIndex.THINGS, query, "", 1)).items:
                    found.append(str(row["name"]))
        return found

    async def dynamic(self, name: str) -> ThingGroup:
        """Return a dynamic group. Raise `UnknownThingGroupError`, `StaticGroupError`."""
        if (known := await self.get(name)).query is None:
            raise StaticGroupError(group=name)
        return known

    async def check_deletable_as_dynamic(self, name: str) -> None:
        """Raise `StaticGroupError` if the group is not dynamic; a missing group is ignored."""
        with contextlib.suppress(UnknownThingGroupError):
            await self.dynamic(name)

    async def things_in(self, group: str, after: str, size: int, *, recursive: bool = False) -> Page[str]:
        """Return the things of a group; `recursive` includes its descendants.

        Raise `UnknownThingGroupError`.
        """
        known = await self.get(group)
        if known.query is not None:
            return await self.index.search(SearchIndex.THINGS, _query_of(known), after, size)
        query = store.THINGS_BELOW if recursive else store.THINGS_IN
        rows = await self.database.all(query, thing_group=group, after=after, limit=size + 1)
        found = [str(row["thing"]) for row in rows]
        return page_of(found, size, found)

    async def _tell(self, event: str, group: ThingGroup, line: Sequence[str]) -> None:
        described = group.properties
        await self.announcer.tell(
            "THING_GROUP",
            f"thingGroup/{group.name}/{event}",
            eventType="THING_GROUP_EVENT",
            operation=event.upper(),
            thingGroupId=group.group_id,
            thingGroupName=group.name,
            versionNumber=group.version,
            parentGroupName=group.parent,
            description=described.get("thingGroupDescription"),
            rootToParentThingGroups=list(line),
            attributes=(described.get("attributePayload") or {}).get("attributes") or {},
        )
        if group.parent is None or event == "updated":
            return
        operation = "ADDED" if event == "created" else "REMOVED"
        parent = await self.get(group.parent)
        await self.announcer.tell(
            "THING_GROUP_HIERARCHY",
            f"thingGroupHierarchy/thingGroup/{parent.name}/childThingGroup/{group.name}/{operation.lower()}",
            eventType="THING_GROUP_HIERARCHY_EVENT",
            operation=operation,
            thingGroupId=parent.group_id,
            thingGroupName=parent.name,
            childGroupId=group.group_id,
            childGroupName=group.name,
        )


def _query_of(group: ThingGroup) -> Query:
    return parse_query(json.loads(group.query or "{}")["queryString"])
