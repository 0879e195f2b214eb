"""Things, thing types, and the certificates of things."""

from collections.abc import Mapping
from typing import Any

from birthmark.awsiot import wire
from birthmark.awsiot.http.routing import Call, Handler, paged
from birthmark.awsiot.model import PrincipalType, parse_certificate_id, parse_thing_name
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.wire import parse_body


def handlers(aws: AwsIot) -> Mapping[str, Handler]:
    """Return who serves the operations of the registry."""
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
        name = call.get("attributeName")
        page = await things.page(
            call.after,
            call.size,
            type_name=call.get("thingTypeName"),
            attribute=None if name is None else (name, call.get("attributeValue")),
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
        if (name := call.get("thingTypeName")) is not None:
            return {"thingTypes": [wire.thing_type_json(account, await types.get(name))]}
        page = await types.page(call.after, call.size)
        found = [wire.thing_type_json(account, known) for known in page.items]
        return paged("thingTypes", found, page, more="nextToken")

    async def deprecate_type(call: Call) -> None:
        asked = parse_body(call.body, wire.DeprecateThingType)
        await types.deprecate(call["thingTypeName"], undo=asked.undo_deprecate, actor=call.actor)

    async def delete_type(call: Call) -> None:
        await types.delete(call["thingTypeName"], actor=call.actor)

    def principal_of(call: Call) -> str:
        return parse_certificate_id(account.parse_arn(call["principal"], "cert"))

    def kind_of(call: Call) -> PrincipalType:
        return PrincipalType(call.get("thingPrincipalType") or PrincipalType.NON_EXCLUSIVE)

    async def attach(call: Call) -> None:
        await aws.attachments.attach(call["thingName"], principal_of(call), kind_of(call), actor=call.actor)

    async def detach(call: Call) -> None:
        await aws.attachments.detach(call["thingName"], principal_of(call), actor=call.actor)

    async def principals(call: Call) -> Any:
        page = await aws.attachments.principals(call["thingName"], call.after, call.size)
        found = [account.arn("cert", certificate_id) for certificate_id, _ in page.items]
        return paged("principals", found, page, more="nextToken")

    async def principals_v2(call: Call) -> Any:
        page = await aws.attachments.principals(call["thingName"], call.after, call.size)
        found = [
            {"principal": account.arn("cert", certificate_id), "thingPrincipalType": kind.value}
            for certificate_id, kind in page.items
            if call.get("thingPrincipalType") in {None, kind.value}
        ]
        return paged("thingPrincipalObjects", found, page, more="nextToken")

    async def things_of(call: Call) -> Any:
        page = await aws.attachments.things(principal_of(call), call.after, call.size)
        return paged("things", [name for name, _ in page.items], page, more="nextToken")

    async def things_of_v2(call: Call) -> Any:
        page = await aws.attachments.things(principal_of(call), call.after, call.size)
        found = [
            {"thingName": name, "thingPrincipalType": kind.value}
            for name, kind in page.items
            if call.get("thingPrincipalType") in {None, kind.value}
        ]
        return paged("principalThingObjects", found, page, more="nextToken")

    return {
        "CreateThing": create,
        "DescribeThing": describe,
        "UpdateThing": update,
        "DeleteThing": delete,
        "ListThings": listing,
        "CreateThingType": create_type,
        "DescribeThingType": describe_type,
        "ListThingTypes": list_types,
        "DeprecateThingType": deprecate_type,
        "DeleteThingType": delete_type,
        "AttachThingPrincipal": attach,
        "DetachThingPrincipal": detach,
        "ListThingPrincipals": principals,
        "ListThingPrincipalsV2": principals_v2,
        "ListPrincipalThings": things_of,
        "ListPrincipalThingsV2": things_of_v2,
    }
