"""Things, thing types, and the certificates of things."""

from typing import Any

from birthmark.awsiot import wire
from birthmark.awsiot.http.request_router import AwsRequest
from birthmark.awsiot.http.tags import tags_of
from birthmark.awsiot.model import CertificateId, MemberNotServedError, PrincipalType, parse_thing_name
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.account_settings import ANNOUNCED
from birthmark.awsiot.wire import BodyInvalidError
from birthmark.store.columns import from_micros

_KNOWN = (*ANNOUNCED, "POLICY", "CERTIFICATE", "CA_CERTIFICATE")


class EventOperations:
    """The operations on event configurations."""

    def __init__(self, aws: AwsIot) -> None:
        self._events = aws.events

    async def describe_event_configurations(self, _call: AwsRequest) -> Any:
        known = await self._events.configuration()
        answer: dict[str, Any] = {
            "eventConfigurations": {kind: {"Enabled": bool(known.value.get(kind))} for kind in _KNOWN}
        }
        if known.revision:
            answer["creationDate"] = wire.seconds(from_micros(known.made_at))
            answer["lastModifiedDate"] = wire.seconds(from_micros(known.at))
        return answer

    async def update_event_configurations(self, call: AwsRequest) -> None:
        given = call.part("eventConfigurations", dict[str, wire.EventConfiguration]) or {}
        wanted = {kind: one.enabled for kind, one in given.items()}
        for kind, is_on in wanted.items():
            if kind not in _KNOWN:
                raise wire.BodyInvalidError(detail=f"eventConfigurations: {kind[:40]!r} is none of {', '.join(_KNOWN)}")
            if is_on and kind not in ANNOUNCED:
                raise MemberNotServedError(member=f"eventConfigurations.{kind}", operation=call.operation.name)
        await self._events.configure(wanted, actor=call.actor)


class ThingOperations:
    """The operations of the registry."""

    def __init__(self, aws: AwsIot) -> None:
        self._things = aws.things
        self._types = aws.things.types
        self._attachments = aws.attachments

    async def create_thing(self, call: AwsRequest) -> Any:
        payload = call.part("attributePayload", wire.AttributePayload) or wire.AttributePayload()
        thing = await self._things.create(
            parse_thing_name(call["thingName"]),
            payload.attributes,
            call.get("thingTypeName"),
            call.get("billingGroupName"),
            actor=call.actor,
        )
        return wire.thing_name_json(call.account, thing)

    async def describe_thing(self, call: AwsRequest) -> Any:
        return wire.thing_json(call.account, await self._things.get(call["thingName"]))

    async def update_thing(self, call: AwsRequest) -> None:
        payload = call.part("attributePayload", wire.AttributePayload)
        await self._things.update(
            call["thingName"],
            None if payload is None else payload.attributes,
            call.get("thingTypeName"),
            merge=payload is not None and payload.merge,
            remove_type=call.flag("removeThingType"),
            expected=call.number("expectedVersion"),
            actor=call.actor,
        )

    async def delete_thing(self, call: AwsRequest) -> None:
        await self._things.delete(call["thingName"], call.number("expectedVersion"), actor=call.actor)

    async def list_things(self, call: AwsRequest) -> Any:
        name, kind = call.get("attributeName"), call.get("thingTypeName")
        if name is not None and kind is not None:
            detail = "Listing things by the combination of attribute and thing type is not supported"
            raise BodyInvalidError(detail=detail)  # as AWS says it (aws/aws-sdk-js#4237)
        page = await self._things.page(
            call.after,
            call.size,
            type_name=kind,
            attribute=None if name is None else (name, call.get("attributeValue")),
            prefix=call.flag("usePrefixAttributeValue"),
        )
        return call.paged("things", [wire.thing_attribute_json(call.account, thing) for thing in page.items], page)

    async def create_thing_type(self, call: AwsRequest) -> Any:
        name, properties = parse_thing_name(call["thingTypeName"]), _type_properties(call)
        made = await self._types.create(name, properties, tags=tags_of(call, name), actor=call.actor)
        return wire.thing_type_name_json(call.account, made)

    async def update_thing_type(self, call: AwsRequest) -> None:
        properties = _type_properties(call)
        if properties.keys() - {"mqtt5Configuration"}:
            raise BodyInvalidError(detail="Can only update mqtt5Configuration.")  # aws/aws-cli#9884
        await self._types.update(call["thingTypeName"], properties, actor=call.actor)

    async def describe_thing_type(self, call: AwsRequest) -> Any:
        return wire.thing_type_json(call.account, await self._types.get(call["thingTypeName"]))

    async def list_thing_types(self, call: AwsRequest) -> Any:
        if call.get("thingTypeName") is not None:
            return {"thingTypes": [await self.describe_thing_type(call)]}
        page = await self._types.page(call.after, call.size)
        return call.paged("thingTypes", [wire.thing_type_json(call.account, known) for known in page.items], page)

    async def deprecate_thing_type(self, call: AwsRequest) -> None:
        await self._types.deprecate(call["thingTypeName"], undo=call.flag("undoDeprecate"), actor=call.actor)

    async def delete_thing_type(self, call: AwsRequest) -> None:
        await self._types.delete(call["thingTypeName"], actor=call.actor)

    async def attach_thing_principal(self, call: AwsRequest) -> None:
        kind = PrincipalType(call.get("thingPrincipalType") or PrincipalType.NON_EXCLUSIVE)
        await self._attachments.attach(call["thingName"], self._principal(call), kind, actor=call.actor)

    async def detach_thing_principal(self, call: AwsRequest) -> None:
        await self._attachments.detach(call["thingName"], self._principal(call), actor=call.actor)

    async def list_thing_principals(self, call: AwsRequest) -> Any:
        page = await self._attachments.principals(call["thingName"], call.after, call.size)
        return call.paged("principals", [call.account.arn("cert", each) for each, _ in page.items], page)

    async def list_thing_principals_v2(self, call: AwsRequest) -> Any:
        page = await self._attachments.principals(call["thingName"], call.after, call.size)
        found = [
            {"principal": call.account.arn("cert", certificate_id), "thingPrincipalType": kind.value}
            for certificate_id, kind in page.items
            if call.get("thingPrincipalType") in {None, kind.value}
        ]
        return call.paged("thingPrincipalObjects", found, page)

    async def list_principal_things(self, call: AwsRequest) -> Any:
        page = await self._attachments.things(self._principal(call), call.after, call.size)
        return call.paged("things", [name for name, _ in page.items], page)

    async def list_principal_things_v2(self, call: AwsRequest) -> Any:
        page = await self._attachments.things(self._principal(call), call.after, call.size)
        found = [
            {"thingName": name, "thingPrincipalType": kind.value}
            for name, kind in page.items
            if call.get("thingPrincipalType") in {None, kind.value}
        ]
        return call.paged("principalThingObjects", found, page)

    def _principal(self, call: AwsRequest) -> CertificateId:
        return call.account.parse_certificate_arn(call["principal"])


def _type_properties(call: AwsRequest) -> dict[str, Any]:
    """Return what a thing type is described by, as the client gave it."""
    given = call.part("thingTypeProperties", wire.ThingTypeProperties)
    return {} if given is None else wire.given_json(given)
