"""Things, thing types, and the certificates of things."""

from typing import Any

from birthmark.awsiot import wire
from birthmark.awsiot.http.operation_routing_and_request_members import AwsRequest
from birthmark.awsiot.http.tags import tags_of
from birthmark.awsiot.model import CertificateId, PrincipalType, parse_thing_name
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.wire import BodyInvalidError


class ThingOperations:
    """The operations of the registry."""

    def __init__(self, aws: AwsIot) -> None:
        self._things = aws.things
        self._types = aws.things.types
        self._attachments = aws.attachments

    async def create_thing(self, request: AwsRequest) -> Any:
        payload = request.part("attributePayload", wire.AttributePayload) or wire.AttributePayload()
        thing = await self._things.create(
            parse_thing_name(request["thingName"]),
            payload.attributes,
            request.get("thingTypeName"),
            request.get("billingGroupName"),
            actor=request.actor,
        )
        return wire.thing_name_json(request.account, thing)

    async def describe_thing(self, request: AwsRequest) -> Any:
        return wire.thing_json(request.account, await self._things.get(request["thingName"]))

    async def update_thing(self, request: AwsRequest) -> None:
        payload = request.part("attributePayload", wire.AttributePayload)
        await self._things.update(
            request["thingName"],
            None if payload is None else payload.attributes,
            request.get("thingTypeName"),
            merge=payload is not None and payload.merge,
            remove_type=request.flag("removeThingType"),
            expected=request.number("expectedVersion"),
            actor=request.actor,
        )

    async def delete_thing(self, request: AwsRequest) -> None:
        await self._things.delete(request["thingName"], request.number("expectedVersion"), actor=request.actor)

    async def list_things(self, request: AwsRequest) -> Any:
        name, kind = request.get("attributeName"), request.get("thingTypeName")
        if name is not None and kind is not None:
            detail = "Listing things by the combination of attribute and thing type is not supported"
            raise BodyInvalidError(detail=detail)  # AWS's text (aws/aws-sdk-js#4237)
        page = await self._things.page(
            request.after,
            request.size,
            type_name=kind,
            attribute=None if name is None else (name, request.get("attributeValue")),
            prefix=request.flag("usePrefixAttributeValue"),
        )
        return request.paged(
            "things", [wire.thing_attribute_json(request.account, thing) for thing in page.items], page
        )

    async def create_thing_type(self, request: AwsRequest) -> Any:
        name, properties = parse_thing_name(request["thingTypeName"]), _type_properties(request)
        made = await self._types.create(name, properties, tags=tags_of(request, name), actor=request.actor)
        return wire.thing_type_name_json(request.account, made)

    async def update_thing_type(self, request: AwsRequest) -> None:
        properties = _type_properties(request)
        if properties.keys() - {"mqtt5Configuration"}:
            raise BodyInvalidError(detail="Can only update mqtt5Configuration.")  # aws/aws-cli#9884
        await self._types.update(request["thingTypeName"], properties, actor=request.actor)

    async def describe_thing_type(self, request: AwsRequest) -> Any:
        return wire.thing_type_json(request.account, await self._types.get(request["thingTypeName"]))

    async def list_thing_types(self, request: AwsRequest) -> Any:
        if request.get("thingTypeName") is not None:
            return {"thingTypes": [await self.describe_thing_type(request)]}
        page = await self._types.page(request.after, request.size)
        return request.paged("thingTypes", [wire.thing_type_json(request.account, known) for known in page.items], page)

    async def deprecate_thing_type(self, request: AwsRequest) -> None:
        await self._types.deprecate(request["thingTypeName"], undo=request.flag("undoDeprecate"), actor=request.actor)

    async def delete_thing_type(self, request: AwsRequest) -> None:
        await self._types.delete(request["thingTypeName"], actor=request.actor)

    async def attach_thing_principal(self, request: AwsRequest) -> None:
        kind = PrincipalType(request.get("thingPrincipalType") or PrincipalType.NON_EXCLUSIVE)
        await self._attachments.attach(request["thingName"], self._principal(request), kind, actor=request.actor)

    async def detach_thing_principal(self, request: AwsRequest) -> None:
        await self._attachments.detach(request["thingName"], self._principal(request), actor=request.actor)

    async def list_thing_principals(self, request: AwsRequest) -> Any:
        page = await self._attachments.principals(request["thingName"], request.after, request.size)
        return request.paged("principals", [request.account.arn("cert", each) for each, _ in page.items], page)

    async def list_thing_principals_v2(self, request: AwsRequest) -> Any:
        page = await self._attachments.principals(request["thingName"], request.after, request.size)
        found = [
            {"principal": request.account.arn("cert", certificate_id), "thingPrincipalType": kind.value}
            for certificate_id, kind in page.items
            if request.get("thingPrincipalType") in {None, kind.value}
        ]
        return request.paged("thingPrincipalObjects", found, page)

    async def list_principal_things(self, request: AwsRequest) -> Any:
        page = await self._attachments.things(self._principal(request), request.after, request.size)
        return request.paged("things", [name for name, _ in page.items], page)

    async def list_principal_things_v2(self, request: AwsRequest) -> Any:
        page = await self._attachments.things(self._principal(request), request.after, request.size)
        found = [
            {"thingName": name, "thingPrincipalType": kind.value}
            for name, kind in page.items
            if request.get("thingPrincipalType") in {None, kind.value}
        ]
        return request.paged("principalThingObjects", found, page)

    def _principal(self, request: AwsRequest) -> CertificateId:
        return request.account.parse_certificate_arn(request["principal"])


def _type_properties(request: AwsRequest) -> dict[str, Any]:
    """Return the thing type properties as given by the client."""
    given = request.part("thingTypeProperties", wire.ThingTypeProperties)
    return {} if given is None else wire.given_json(given)
