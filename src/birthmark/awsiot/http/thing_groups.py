"""Thing groups, and the things in them."""

from typing import Any

from birthmark.awsiot import wire
from birthmark.awsiot.http.request_router import AwsRequest
from birthmark.awsiot.http.tags import tags_of
from birthmark.awsiot.model import parse_thing_name
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.wire import BodyInvalidError


class ThingGroupOperations:
    """The operations of thing groups."""

    def __init__(self, aws: AwsIot) -> None:
        self._groups = aws.thing_groups

    async def create_thing_group(self, call: AwsRequest) -> Any:
        given = properties_of(call)
        name, parent = parse_thing_name(call["thingGroupName"]), call.get("parentGroupName")
        made = await self._groups.create(
            name, given.description, given.attributes, parent, tags=tags_of(call, name), actor=call.actor
        )
        return wire.thing_group_name_json(call.account, made) | {"thingGroupId": made.group_id}

    async def describe_thing_group(self, call: AwsRequest) -> Any:
        known = await self._groups.get(call["thingGroupName"])
        return wire.thing_group_json(call.account, known, await self._groups.line(known.name))

    async def update_thing_group(self, call: AwsRequest) -> Any:
        given, expected = properties_of(call), call.number("expectedVersion")
        made = await self._groups.update(
            call["thingGroupName"],
            given.description,
            given.attributes,
            merge=given.merges,
            expected=expected,
            actor=call.actor,
        )
        return {"version": made.version}

    async def delete_thing_group(self, call: AwsRequest) -> None:
        await self._groups.delete(call["thingGroupName"], call.number("expectedVersion"), actor=call.actor)

    async def list_thing_groups(self, call: AwsRequest) -> Any:
        parent, recursive = call.get("parentGroup"), call.flag("recursive", default=True)
        prefix = call.get("namePrefixFilter") or ""
        page = await self._groups.page(call.after, call.size, prefix, parent=parent, recursive=recursive)
        return call.paged("thingGroups", [wire.group_name_json(call.account, group.name) for group in page.items], page)

    async def add_thing_to_thing_group(self, call: AwsRequest) -> None:
        await self._groups.add(*self._pair(call), actor=call.actor)

    async def remove_thing_from_thing_group(self, call: AwsRequest) -> None:
        await self._groups.remove(*self._pair(call), actor=call.actor)

    async def update_thing_groups_for_thing(self, call: AwsRequest) -> None:
        into, out_of = (call.part(f"thingGroupsTo{verb}", list[str]) or [] for verb in ("Add", "Remove"))
        if twice := sorted({*into} & {*out_of}):
            raise BodyInvalidError(detail=f"{twice[0][:128]} is to be added and removed")
        await self._groups.change_of(call["thingName"], into, out_of, actor=call.actor)

    async def list_thing_groups_for_thing(self, call: AwsRequest) -> Any:
        page = await self._groups.groups_of(call["thingName"], call.after, call.size)
        return call.paged("thingGroups", [wire.group_name_json(call.account, name) for name in page.items], page)

    async def list_things_in_thing_group(self, call: AwsRequest) -> Any:
        page = await self._groups.things_in(
            call["thingGroupName"], call.after, call.size, recursive=call.flag("recursive")
        )
        return call.paged("things", page.items, page)

    def _pair(self, call: AwsRequest) -> tuple[str, str]:
        """Return group and thing, each by its name or its ARN. Raise `BodyInvalidError`."""
        return self._one(call, "thingGroup", "thinggroup"), self._one(call, "thing", "thing")

    def _one(self, call: AwsRequest, member: str, kind: str) -> str:
        name, arn = call.get(f"{member}Name"), call.get(f"{member}Arn")
        if arn is None and name is not None:
            return name
        found = None if arn is None else call.account.parse_arn(arn, kind)[1]
        if found is None or name not in {None, found}:
            raise BodyInvalidError(detail=f"give {member}Name, or the {member}Arn of one of this account")
        return found


def properties_of(call: AwsRequest) -> wire.ThingGroupProperties:
    """Return what a group is described by."""
    return call.part("thingGroupProperties", wire.ThingGroupProperties) or wire.ThingGroupProperties()
