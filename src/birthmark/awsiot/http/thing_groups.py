"""Thing groups and their members."""

from typing import Any

from birthmark.awsiot import wire
from birthmark.awsiot.http.operation_routing_and_request_members import AwsRequest
from birthmark.awsiot.http.tags import tags_of
from birthmark.awsiot.model import parse_thing_name
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.wire import BodyInvalidError


class ThingGroupOperations:
    """Operations of thing groups."""

    def __init__(self, aws: AwsIot) -> None:
        self._groups = aws.thing_groups

    async def create_thing_group(self, request: AwsRequest) -> Any:
        given = properties_of(request)
        name, parent = parse_thing_name(request["thingGroupName"]), request.get("parentGroupName")
        made = await self._groups.create(
            name, given.description, given.attributes, parent, tags=tags_of(request, name), actor=request.actor
        )
        return wire.thing_group_name_json(request.account, made) | {"thingGroupId": made.group_id}

    async def describe_thing_group(self, request: AwsRequest) -> Any:
        known = await self._groups.get(request["thingGroupName"])
        return wire.thing_group_json(request.account, known, await self._groups.line(known.name))

    async def update_thing_group(self, request: AwsRequest) -> Any:
        given, expected = properties_of(request), request.number("expectedVersion")
        made = await self._groups.update(
            request["thingGroupName"],
            given.description,
            given.attributes,
            merge=given.merges,
            expected=expected,
            actor=request.actor,
        )
        return {"version": made.version}

    async def delete_thing_group(self, request: AwsRequest) -> None:
        await self._groups.delete(request["thingGroupName"], request.number("expectedVersion"), actor=request.actor)

    async def list_thing_groups(self, request: AwsRequest) -> Any:
        parent, recursive = request.get("parentGroup"), request.flag("recursive", default=True)
        prefix = request.get("namePrefixFilter") or ""
        page = await self._groups.page(request.after, request.size, prefix, parent=parent, recursive=recursive)
        return request.paged(
            "thingGroups", [wire.group_name_json(request.account, group.name) for group in page.items], page
        )

    async def add_thing_to_thing_group(self, request: AwsRequest) -> None:
        await self._groups.add(*self._pair(request), actor=request.actor)

    async def remove_thing_from_thing_group(self, request: AwsRequest) -> None:
        await self._groups.remove(*self._pair(request), actor=request.actor)

    async def update_thing_groups_for_thing(self, request: AwsRequest) -> None:
        into, out_of = (request.part(f"thingGroupsTo{verb}", list[str]) or [] for verb in ("Add", "Remove"))
        if twice := sorted({*into} & {*out_of}):
            raise BodyInvalidError(detail=f"{twice[0][:128]} cannot be both added and removed")
        await self._groups.change_membership(request["thingName"], into, out_of, actor=request.actor)

    async def list_thing_groups_for_thing(self, request: AwsRequest) -> Any:
        page = await self._groups.groups_of(request["thingName"], request.after, request.size)
        return request.paged("thingGroups", [wire.group_name_json(request.account, name) for name in page.items], page)

    async def list_things_in_thing_group(self, request: AwsRequest) -> Any:
        page = await self._groups.things_in(
            request["thingGroupName"], request.after, request.size, recursive=request.flag("recursive")
        )
        return request.paged("things", page.items, page)

    def _pair(self, request: AwsRequest) -> tuple[str, str]:
        """Return group and thing, each by name or ARN. Raise `BodyInvalidError`."""
        return self._one(request, "thingGroup", "thinggroup"), self._one(request, "thing", "thing")

    def _one(self, request: AwsRequest, member: str, kind: str) -> str:
        name, arn = request.get(f"{member}Name"), request.get(f"{member}Arn")
        if arn is None and name is not None:
            return name
        found = None if arn is None else request.account.parse_arn(arn, kind)[1]
        if found is None or name not in {None, found}:
            raise BodyInvalidError(detail=f"give {member}Name, or the {member}Arn of one of this account")
        return found


def properties_of(request: AwsRequest) -> wire.ThingGroupProperties:
    """Return the properties of a group."""
    return request.part("thingGroupProperties", wire.ThingGroupProperties) or wire.ThingGroupProperties()
