"""Things, thing types, and the certificates of things."""

from typing import Any

from birthmark.awsiot import wire
from birthmark.awsiot.http.routing import Call, Operation, paged
from birthmark.awsiot.model import PrincipalType, parse_certificate_id, parse_thing_name
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.wire import BodyInvalidError, parse_body

_PRINCIPAL = "x-amzn-principal"


def operations(aws: AwsIot) -> list[Operation]:
    """Return the operations of the registry."""
    account, things, types = aws.account, aws.things, aws.things.types

    async def create(call: Call) -> Any:
        asked = parse_body(call.body, wire.CreateThing)
        payload = asked.attribute_payload or wire.AttributePayload()
        thing = await things.create(
            parse_thing_name(call["thingName"]),
            payload.attributes,
            asked.thing_type_name,
            asked.billing_group_name,
            actor=call.actor,
        )
        return {"thingName": thing.name, "thingArn": account.arn("thing", thing.name), "thingId": thing.thing_id}

    async def describe(call: Call) -> Any:
        return wire.thing_json(account, await things.get(call["thingName"]))

    async def update(call: Call) -> None:
        asked = parse_body(call.body, wire.UpdateThing)
        payload = asked.attribute_payload
        await things.update(
            call["thingName"],
            None if payload is None else payload.attributes,
            asked.thing_type_name,
            merge=payload is not None and payload.merge,
            remove_type=asked.remove_thing_type,
            expected=asked.expected_version,
            actor=call.actor,
        )

    async def delete(call: Call) -> None:
        await things.delete(call["thingName"], call.number("expectedVersion"), actor=call.actor)

    async def listing(call: Call) -> Any:
        name = call.query.get("attributeName")
        page = await things.page(
            call.after or "",
            call.size,
            type_name=call.query.get("thingTypeName"),
            attribute=None if name is None else (name, call.query.get("attributeValue")),
            prefix=call.flag("usePrefixAttributeValue"),
        )
        found = [wire.thing_attribute_json(account, thing) for thing in page.items]
        return paged("things", found, page, more="nextToken")

    async def create_type(call: Call) -> Any:
        asked = parse_body(call.body, wire.CreateThingType)
        made = await types.create(
            parse_thing_name(call["thingTypeName"]), asked.thing_type_properties, actor=call.actor
        )
        arn = account.arn("thingtype", made.name)
        return {"thingTypeName": made.name, "thingTypeArn": arn, "thingTypeId": made.type_id}

    async def describe_type(call: Call) -> Any:
        return wire.thing_type_json(account, await types.get(call["thingTypeName"]))

    async def list_types(call: Call) -> Any:
        if (name := call.query.get("thingTypeName")) is not None:
            return {"thingTypes": [wire.thing_type_json(account, await types.get(name))]}
        page = await types.page(call.after or "", call.size)
        found = [wire.thing_type_json(account, known) for known in page.items]
        return paged("thingTypes", found, page, more="nextToken")

    async def deprecate_type(call: Call) -> None:
        asked = parse_body(call.body, wire.DeprecateThingType)
        await types.deprecate(call["thingTypeName"], undo=asked.undo_deprecate, actor=call.actor)

    async def delete_type(call: Call) -> None:
        await types.delete(call["thingTypeName"], actor=call.actor)

    def principal_of(call: Call) -> str:
        return parse_certificate_id(account.parse_arn(call.header(_PRINCIPAL), "cert"))

    def kind_of(call: Call) -> PrincipalType:
        text = call.query.get("thingPrincipalType", PrincipalType.NON_EXCLUSIVE.value)
        try:
            return PrincipalType(text)
        except ValueError as error:
            raise BodyInvalidError(detail=f"thingPrincipalType {text!r}") from error

    async def attach(call: Call) -> None:
        await aws.attachments.attach(call["thingName"], principal_of(call), kind_of(call), actor=call.actor)

    async def detach(call: Call) -> None:
        await aws.attachments.detach(call["thingName"], principal_of(call), actor=call.actor)

    async def principals(call: Call) -> Any:
        page = await aws.attachments.principals(call["thingName"], call.after or "", call.size)
        found = [account.arn("cert", certificate_id) for certificate_id, _ in page.items]
        return paged("principals", found, page, more="nextToken")

    async def principals_v2(call: Call) -> Any:
        page = await aws.attachments.principals(call["thingName"], call.after or "", call.size)
        found = [
            {"principal": account.arn("cert", certificate_id), "thingPrincipalType": kind.value}
            for certificate_id, kind in page.items
            if call.query.get("thingPrincipalType") in {None, kind.value}
        ]
        return paged("thingPrincipalObjects", found, page, more="nextToken")

    async def things_of(call: Call) -> Any:
        page = await aws.attachments.things(principal_of(call), call.after or "", call.size)
        return paged("things", [name for name, _ in page.items], page, more="nextToken")

    async def things_of_v2(call: Call) -> Any:
        page = await aws.attachments.things(principal_of(call), call.after or "", call.size)
        found = [
            {"thingName": name, "thingPrincipalType": kind.value}
            for name, kind in page.items
            if call.query.get("thingPrincipalType") in {None, kind.value}
        ]
        return paged("principalThingObjects", found, page, more="nextToken")

    thing, type_ = "/things/{thingName}", "/thing-types/{thingTypeName}"
    return [
        Operation("CreateThing", "POST", thing, create),
        Operation("DescribeThing", "GET", thing, describe),
        Operation("UpdateThing", "PATCH", thing, update),
        Operation("DeleteThing", "DELETE", thing, delete),
        Operation("ListThings", "GET", "/things", listing),
        Operation("CreateThingType", "POST", type_, create_type),
        Operation("DescribeThingType", "GET", type_, describe_type),
        Operation("ListThingTypes", "GET", "/thing-types", list_types),
        Operation("DeprecateThingType", "POST", f"{type_}/deprecate", deprecate_type),
        Operation("DeleteThingType", "DELETE", type_, delete_type),
        Operation("AttachThingPrincipal", "PUT", f"{thing}/principals", attach),
        Operation("DetachThingPrincipal", "DELETE", f"{thing}/principals", detach),
        Operation("ListThingPrincipals", "GET", f"{thing}/principals", principals),
        Operation("ListThingPrincipalsV2", "GET", f"{thing}/principals-v2", principals_v2),
        Operation("ListPrincipalThings", "GET", "/principals/things", things_of),
        Operation("ListPrincipalThingsV2", "GET", "/principals/things-v2", things_of_v2),
    ]
