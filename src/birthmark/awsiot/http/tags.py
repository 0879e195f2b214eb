"""Tags: none is kept here, so that every resource which may have some has none."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from birthmark.awsiot.http.routing import Call
from birthmark.awsiot.model import parse_certificate_id
from birthmark.awsiot.service import AwsIot
from birthmark.store.paging import Page

_NO_TAGS: Page[Any] = Page((), None)


class TagOperations:
    """The operations on tags."""

    def __init__(self, aws: AwsIot) -> None:
        self._account = aws.account
        # By an ARN's kind, who knows whether the resource is there; the others of this server have no tags at AWS.
        self._owners: Mapping[str, Callable[[str], Awaitable[object]]] = {
            "thinggroup": aws.thing_groups.get,
            "thingtype": aws.things.types.get,
            "policy": aws.policies.get,
            "cacert": lambda name: aws.authorities.get(parse_certificate_id(name)),
        }

    async def list_tags_for_resource(self, call: Call) -> Any:
        kind, name = self._account.parse_arn(call["resourceArn"], *self._owners)
        _ = call.after  # a token that is none of ours is refused as elsewhere
        await self._owners[kind](name)
        return call.paged("tags", _NO_TAGS.items, _NO_TAGS)
