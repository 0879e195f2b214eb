"""DescribeEventConfigurations and UpdateEventConfigurations."""

from typing import Any

from birthmark.awsiot import wire
from birthmark.awsiot.http.operation_routing_and_request_members import AwsRequest
from birthmark.awsiot.model import MemberNotServedError
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.registry_events import ANNOUNCED
from birthmark.store.plain_and_encrypted_column_types import from_micros

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

    async def update_event_configurations(self, request: AwsRequest) -> None:
        given = request.part("eventConfigurations", dict[str, wire.EventConfiguration]) or {}
        wanted = {kind: one.enabled for kind, one in given.items()}
        for kind, is_on in wanted.items():
            if kind not in _KNOWN:
                raise wire.BodyInvalidError(
                    detail=f"eventConfigurations: {kind[:40]!r} is not one of {', '.join(_KNOWN)}"
                )
            if is_on and kind not in ANNOUNCED:
                raise MemberNotServedError(member=f"eventConfigurations.{kind}", operation=request.operation.name)
        await self._events.configure(wanted, actor=request.actor)
