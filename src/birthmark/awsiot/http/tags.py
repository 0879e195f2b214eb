"""Tags of resources, by ARN."""

from typing import Any
from urllib.parse import parse_qsl

from birthmark.awsiot import wire
from birthmark.awsiot.http.operation_routing_and_request_members import AwsRequest
from birthmark.awsiot.model import parse_certificate_id
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.tags import parse_tags


class TagOperations:
    """The operations on tags."""

    def __init__(self, aws: AwsIot) -> None:
        self._tags = aws.tags

    async def tag_resource(self, request: AwsRequest) -> None:
        kind, name = self._resource(request)
        await self._tags.add(kind, name, tags_of(request, name), actor=request.actor)

    async def untag_resource(self, request: AwsRequest) -> None:
        kind, name = self._resource(request)
        await self._tags.remove(kind, name, request.part("tagKeys", list[str]) or [], actor=request.actor)

    async def list_tags_for_resource(self, request: AwsRequest) -> Any:
        page = await self._tags.page(*self._resource(request), request.after, request.size)
        return request.paged("tags", [{"Key": key, "Value": value} for key, value in page.items], page)

    def _resource(self, request: AwsRequest) -> tuple[str, str]:
        kind, name = request.account.parse_arn(request["resourceArn"], *self._tags.sinks)
        return kind, parse_certificate_id(name) if kind == "cacert" else name


def tags_of(request: AwsRequest, name: str) -> dict[str, str]:
    """Return the tags in a request for the resource with this name. Raise `TagInvalidError`."""
    return parse_tags(name, [(one.key, one.value) for one in request.part("tags", list[wire.Tag]) or ()])


def parse_header_tags(request: AwsRequest, name: str) -> dict[str, str]:
    """Return the tags in a request header, which are encoded as a query. Raise `TagInvalidError`."""
    return parse_tags(name, parse_qsl(request.get("tags") or "", keep_blank_values=True))
