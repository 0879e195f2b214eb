"""Thing types: names with properties that many things share."""

import shlex
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from birthmark.awsiot.model import ThingName, ThingType
from birthmark.awsiot.service.base import RegistryService
from birthmark.awsiot.service.tags import NO_TAGS, Tags, has_same_tags, tag_deletes, written
from birthmark.awsiot.store import registry as store
from birthmark.clock_and_entropy import new_uuid
from birthmark.errors import ConflictError, InvalidRequestError, NotFoundError
from birthmark.store import Changes, retry_on_conflict, to_micros
from birthmark.store.pagination import Page, page_of

_REST = timedelta(minutes=5)


class UnknownThingTypeError(NotFoundError):
    """The thing type does not exist."""

    code = "awsiot.unknown_thing_type"
    message = "Thing type {type} not found"
    fix = "Create the thing type: `aws iot create-thing-type --thing-type-name {type}`."
    type: str


class ThingTypeExistsError(ConflictError):
    """A different thing type with this name exists already."""

    code = "awsiot.thing_type_exists"
    message = "Thing type {type} already exists"
    cause = "Thing type {type} already exists with different properties."
    fix = (
        "To show the existing thing type: `aws iot describe-thing-type --thing-type-name {type}`. Use that type, or "
        "choose another name."
    )
    type: str


class ThingTypeInUseError(InvalidRequestError):
    """The thing type's state does not permit this operation."""

    code = "awsiot.thing_type_state"
    message = "The state of thing type {type} does not permit this operation: {detail}"
    fix = (
        "Run this command next: `{command}`. You can delete a thing type 5 minutes after its deprecation if no "
        "things have this type. A deprecated type accepts no new things."
    )
    command: str
    detail: str
    type: str


class ThingTypes(RegistryService):
    """The types of the registry."""

    async def get(self, name: str) -> ThingType:
        """Return a type. Raise `UnknownThingTypeError`."""
        row = await self.database.one(store.GET_TYPE, name=name)
        if row is None:
            raise UnknownThingTypeError(type=name[:128])
        return store.TYPES.of(row)

    async def check_usable(self, name: str | None) -> None:
        """Raise an error if a thing cannot have this type."""
        if name is not None and (await self.get(name)).deprecated_at is not None:
            raise ThingTypeInUseError(
                type=name,
                detail="it is deprecated",
                command=f"aws iot deprecate-thing-type --thing-type-name {shlex.quote(name)} --undo-deprecate",
            )

    def usable_guard(self, name: str | None) -> Changes:
        """Return a write guard that requires the type to be usable."""
        return Changes() if name is None else Changes().run(store.TYPE_IS_USABLE, expect=1, key_name=name)

    async def create(
        self, name: ThingName, properties: Mapping[str, Any], *, tags: Tags = NO_TAGS, actor: str
    ) -> ThingType:
        """Create a type, or return an identical existing one. Raise `ThingTypeExistsError`."""
        made = ThingType(name, new_uuid(self.entropy), properties, None, self.clock.now())
        exists = ThingTypeExistsError(type=name)
        changes = Changes().run(store.ADD_TYPE, expect=1, otherwise=exists, **store.TYPES.row(made))
        changes.merge(written("thingtype", name, tags))
        try:
            await self.database.commit(changes.audit(actor, "awsiot.thing_type_create", name))
        except ThingTypeExistsError:
            present = await self.get(name)
            if present.properties != properties or not await has_same_tags(self.database, "thingtype", name, tags):
                raise
            return present
        await self._tell("created", made)
        return made

    async def update(self, name: str, properties: Mapping[str, Any], *, actor: str) -> None:
        """Update the properties of a type; omitted properties are unchanged.

        Raise `UnknownThingTypeError`.
        """

        async def decide() -> None:
            known = await self.get(name)
            made = replace(known, properties={**known.properties, **properties})
            seen, row = store.TYPES.row(known), store.TYPES.row(made)
            names: dict[str, Any] = {f"key_{one}": seen[one] for one in ("name", "type_id", "properties")}
            changes = Changes().run(store.REPLACE_TYPE, expect=1, properties=row["properties"], **names)
            await self.database.commit(changes.audit(actor, "awsiot.thing_type_update", name))
            await self._tell("updated", made)

        await retry_on_conflict(decide)

    async def _tell(self, event: str, thing_type: ThingType) -> None:
        await self.announcer.tell(
            "THING_TYPE",
            f"thingType/{thing_type.name}/{event}",
            eventType="THING_TYPE_EVENT",
            operation=event.upper(),
            thingTypeId=thing_type.type_id,
            thingTypeName=thing_type.name,
            isDeprecated=thing_type.deprecated_at is not None,
            deprecationDate=thing_type.deprecated_at and to_micros(thing_type.deprecated_at) // 1000,
            searchableAttributes=thing_type.properties.get("searchableAttributes") or [],
            description=thing_type.properties.get("thingTypeDescription"),
        )

    async def deprecate(self, name: str, *, undo: bool, actor: str) -> None:
        """Deprecate a type, or undo its deprecation."""
        known = await self.get(name)
        at = None if undo else self.clock.now()
        changes = Changes().run(store.DEPRECATE_TYPE, key_name=name, deprecated_at=at and to_micros(at))
        await self.database.commit(changes.audit(actor, "awsiot.thing_type_deprecate", name, undo=undo))
        await self._tell("updated", replace(known, deprecated_at=at))

    async def delete(self, name: str, *, actor: str) -> None:
        """Delete a type that has been deprecated long enough and has no things. Raise `ThingTypeInUseError`."""
        await retry_on_conflict(lambda: self._delete(name, actor=actor))

    async def _delete(self, name: str, *, actor: str) -> None:
        known = await self.get(name)
        detail, step = None, "describe-thing-type"
        if known.deprecated_at is None:
            detail, step = "it must have been deprecated for 5 minutes", "deprecate-thing-type"
        elif self.clock.now() < known.deprecated_at + _REST:
            detail = "it must have been deprecated for 5 minutes"
        elif await self.database.one(store.ONE_OF_TYPE, type_name=name) is not None:
            detail, step = "things of this type exist", "list-things"
        if detail is not None:
            raise ThingTypeInUseError(
                type=name, detail=detail, command=f"aws iot {step} --thing-type-name {shlex.quote(name)}"
            )
        at = to_micros(known.deprecated_at) if known.deprecated_at else None
        changes = Changes().run(store.TYPE_IS_THERE, expect=1, key_name=name)
        changes.run(store.DELETE_TYPE, expect=1, name=name, deprecated_at=at).merge(tag_deletes("thingtype", name))
        await self.database.commit(changes.audit(actor, "awsiot.thing_type_delete", name))
        await self._tell("deleted", known)

    async def page(self, after: str, size: int) -> Page[ThingType]:
        """Return types in order of name."""
        found = [store.TYPES.of(row) for row in await self.database.all(store.LIST_TYPES, after=after, limit=size + 1)]
        return page_of(found, size, [each.name for each in found])
