"""Things: create, read, update and delete."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from birthmark.awsiot.domain_events import ThingChanged
from birthmark.awsiot.model import Thing, ThingName, check_attribute_count, is_attribute_name, parse_attributes
from birthmark.awsiot.service.base import RegistryService
from birthmark.awsiot.service.thing_types import ThingTypes
from birthmark.awsiot.store import jobs as job_store
from birthmark.awsiot.store import registry as store
from birthmark.clock_and_entropy import new_uuid
from birthmark.errors import ConflictError, InvalidRequestError, NotFoundError
from birthmark.store import Changes, device_name_prefix_index, retry_on_conflict
from birthmark.store.pagination import Page, page_of


class UnknownThingError(NotFoundError):
    """The thing does not exist."""

    code = "awsiot.unknown_thing"
    message = "Thing {thing} cannot be found."
    cause = "Thing {thing} does not exist. Thing names are case-sensitive."
    fix = (
        "Create the thing: `aws iot create-thing --thing-name {thing}`. To list the existing things: `aws iot "
        "list-things`."
    )
    thing: str


class ThingExistsError(ConflictError):
    """A different thing with this name exists already."""

    code = "awsiot.thing_exists"
    message = "Thing {thing} already exists in account with different properties"
    fix = (
        "To show the existing thing: `aws iot describe-thing --thing-name {thing}`. To change its properties, use "
        "update-thing. Otherwise, choose another name."
    )
    thing: str


class ThingVersionError(ConflictError):
    """The thing has changed since it was read."""

    code = "awsiot.thing_version"
    message = "The version of thing {thing} is not {expected}"
    cause = "Thing {thing} is at version {version}; the request expected {expected}."
    fix = (
        "Repeat the change with the current version of the thing. To read the thing again: `aws iot describe-thing "
        "--thing-name {thing}`"
    )
    expected: object
    thing: str
    version: int


class ThingInUseError(InvalidRequestError):
    """The thing has attached principals."""

    code = "awsiot.thing_in_use"
    message = "Cannot delete. Thing {thing} is still attached to one or more principals"
    fix = (
        'Detach the principals first: `aws iot list-thing-principals --thing-name {thing} --query "principals[]" '
        "--output text | xargs -rn1 aws iot detach-thing-principal --thing-name {thing} --principal`"
    )
    thing: str


class BillingGroupError(NotFoundError):
    """Billing groups are not supported."""

    code = "awsiot.billing_group_not_served"
    message = "Billing group {group} cannot be found"
    cause = "The request names the billing group {group}, but this server does not support billing groups."
    fix = "Omit the billing group: `aws iot create-thing --thing-name {thing}`"
    group: str
    thing: str


@dataclass(slots=True)
class Things(RegistryService):
    """The things of the registry."""

    types: ThingTypes = field(init=False)

    def __post_init__(self) -> None:
        self.types = ThingTypes(self.database, self.clock, self.entropy, self.announcer, self.index)

    async def get(self, name: str) -> Thing:
        """Return a thing. Raise `UnknownThingError`."""
        if (thing := await self.find(name)) is None:
            raise UnknownThingError(thing=name[:128])
        return thing

    async def find(self, name: str) -> Thing | None:
        """Return a thing, or None."""
        row = await self.database.one(store.GET_THING, name=name)
        return None if row is None else store.THINGS.of(row)

    async def find_spellings(self, name: str) -> set[str]:
        """Return the registered case variants of a name; names are case-sensitive."""
        return await device_name_prefix_index.find_spellings(self.database, store.PLACE, name)

    async def create(
        self,
        name: ThingName,
        attributes: Mapping[str, str],
        type_name: str | None,
        billing_group: str | None,
        *,
        actor: str,
    ) -> Thing:
        """Create a thing, or return an identical existing one. Raise `ThingExistsError`."""
        if billing_group is not None:
            raise BillingGroupError(group=billing_group, thing=name)
        known = parse_attributes(attributes)
        return await retry_on_conflict(lambda: self._create(name, known, type_name, actor=actor))

    async def _create(
        self, name: ThingName, attributes: Mapping[str, str], type_name: str | None, *, actor: str
    ) -> Thing:
        await self.types.check_usable(type_name)
        thing = Thing(name, new_uuid(self.entropy), type_name, attributes, None, 1, self.clock.now())
        if (present := await self.find(name)) is None:  # a rejected write costs other writes more than a read
            await self.database.commit(await self.creation_changes(thing, actor=actor))
            await self.publish_created(thing)
            return thing
        if (present.attributes, present.type_name) != (thing.attributes, thing.type_name):
            raise ThingExistsError(thing=name)
        return present

    async def creation_changes(self, thing: Thing, *, actor: str) -> Changes:
        """Return the changes that create a thing; they require the name to be unused."""
        check_attribute_count(thing)
        changes = self.types.usable_guard(thing.type_name).run(store.ADD_THING, expect=1, **store.THINGS.row(thing))
        changes.merge(device_name_prefix_index.found(store.PLACE, thing.name)).merge(await self.index.of_thing(thing))
        changes.count(store.FIGURE)
        return changes.audit(actor, "awsiot.thing_create", thing.name).event(ThingChanged(thing.name))

    async def update_changes(self, before: Thing, thing: Thing, *, actor: str) -> Changes:
        """Return the changes that update a thing; they require it to be unchanged since it was read."""
        if (thing.attributes, thing.type_name) != (before.attributes, before.type_name):  # earlier releases took more
            check_attribute_count(thing)
        changes = self.types.usable_guard(thing.type_name if thing.type_name != before.type_name else None)
        seen: dict[str, Any] = {"key_name": before.name, "key_version": before.version}
        changes.run(store.REPLACE_THING, expect=1, **seen, **store.THINGS.row(thing))
        changes.merge(await self.index.of_thing(thing))
        return changes.audit(actor, "awsiot.thing_update", before.name).event(ThingChanged(before.name))

    async def publish_created(self, thing: Thing) -> None:
        """Publish the event of a created thing."""
        await self._tell("created", thing)
        await self._publish_type_change(thing, None)

    async def publish_updated(self, before: Thing, thing: Thing) -> None:
        """Publish the event of an updated thing."""
        await self._tell("updated", thing)
        await self._publish_type_change(thing, before.type_name)

    async def update(
        self,
        name: str,
        attributes: Mapping[str, str] | None,
        type_name: str | None,
        *,
        merge: bool,
        remove_type: bool,
        expected: int | None,
        actor: str,
    ) -> None:
        """Change a thing's type and attributes (replace or merge). Raise `UnknownThingError` or `ThingVersionError`."""

        async def decide() -> None:
            thing = await self.get(name)
            _check_version(thing, expected)
            await self.types.check_usable(type_name)
            wanted = dict(thing.attributes)
            if attributes is not None:
                wanted = parse_attributes({**thing.attributes, **attributes} if merge else attributes)
            made = replace(
                thing,
                attributes=wanted,
                type_name=None if remove_type else type_name or thing.type_name,
                version=thing.version + 1,
            )
            await self.database.commit(await self.update_changes(thing, made, actor=actor))
            await self.publish_updated(thing, made)

        await retry_on_conflict(decide)

    async def delete(self, name: str, expected: int | None, *, actor: str) -> None:
        """Delete a thing; a missing thing is ignored. Raise `ThingInUseError`, `ThingVersionError`."""
        await retry_on_conflict(lambda: self._delete(name, expected, actor=actor))

    async def _delete(self, name: str, expected: int | None, *, actor: str) -> None:
        thing = await self.find(name)
        if thing is None:
            return
        _check_version(thing, expected)
        if await self.database.all(store.PRINCIPALS_OF, thing=name, after="", limit=1):
            raise ThingInUseError(thing=name)
        changes = Changes().run(store.THING_IS_THERE, expect=1, key_name=name)
        changes.run(store.DELETE_THING, expect=1, name=name, version=thing.version)
        changes.run(store.FORGET_MEMBER, thing=name)
        changes.run(job_store.REMOVE_THING, key_thing=name, updated_at=self.clock.micros())
        changes.run(job_store.DROP_NOTICE, thing=name)
        changes.merge(device_name_prefix_index.unindex_name(store.PLACE, name)).merge(
            await self.index.without_thing(name)
        )
        changes.count(store.FIGURE, by=-1).audit(actor, "awsiot.thing_delete", name)
        await self.database.commit(changes.event(ThingChanged(name)))
        await self._tell("deleted", thing)

    async def _tell(self, event: str, thing: Thing) -> None:
        await self.announcer.tell(
            "THING",
            f"thing/{thing.name}/{event}",
            eventType="THING_EVENT",
            operation=event.upper(),
            thingId=thing.thing_id,
            thingName=thing.name,
            versionNumber=thing.version,
            thingTypeName=thing.type_name,
            attributes=dict(thing.attributes),
        )

    async def _publish_type_change(self, thing: Thing, before: str | None) -> None:
        """Publish the event of a changed thing type."""
        for operation, name in (("REMOVED", before), ("ADDED", thing.type_name)):
            if name is not None and before != thing.type_name:
                await self.announcer.tell(
                    "THING_TYPE_ASSOCIATION",
                    f"thingTypeAssociation/thing/{thing.name}/{name}",
                    eventType="THING_TYPE_ASSOCIATION_EVENT",
                    operation=operation,
                    thingId=thing.thing_id,
                    thingName=thing.name,
                    thingTypeName=name,
                )

    async def page(
        self,
        after: str,
        size: int,
        *,
        type_name: str | None = None,
        attribute: tuple[str, str | None] | None = None,
        prefix: bool = False,
    ) -> Page[Thing]:
        """Return things ordered by name, filtered by type and by one attribute.

        The attribute filter is a value, or a prefix of it with `prefix`.
        """
        name, wanted = attribute or ("", None)
        if attribute is not None and not is_attribute_name(name):
            return Page([], None)
        match = "" if attribute is None else "any" if wanted is None else "prefix" if prefix else "equal"
        rows = await self.database.all(
            store.FITTING_THINGS,
            after=after,
            limit=size + 1,
            type_name=type_name or "",
            match=match,
            path=f'$."{name}"',
            attribute=name,
            value=wanted or "",
        )
        found = [store.THINGS.of(row) for row in rows]
        return page_of(found, size, [thing.name for thing in found])


def _check_version(thing: Thing, expected: int | None) -> None:
    if expected is not None and expected != thing.version:
        raise ThingVersionError(thing=thing.name, version=thing.version, expected=expected)
