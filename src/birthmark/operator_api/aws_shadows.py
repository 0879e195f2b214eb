"""The operator interface to the shadows of things."""

from collections.abc import Sequence
from typing import Any

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.awsiot.model import ThingName, parse_shadow_name, parse_thing_name
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.wire.shadows import ShadowRequest, shadow_json
from birthmark.operator_api.api_router import ApiRequest, Endpoint
from birthmark.untrusted_json_and_text import decode_json


class ShadowPatch(msgspec.Struct):
    """Patch of a thing's desired state: null removes, objects are merged.

    `version` is the expected shadow version.
    """

    desired: dict[str, Any]
    version: int | None = None


def endpoints(aws: AwsIot) -> Sequence[Endpoint]:
    """Return the routes of `birthmark aws shadow`."""

    async def shadow(request: ApiRequest) -> Any:
        thing, name = _shadow_of(request)
        return decode_json(shadow_json(await aws.shadows.get(thing, name), aws.shadows.now()))

    async def change_shadow(asked: ApiRequest) -> Any:
        body: ShadowPatch = asked.body
        thing, name = _shadow_of(asked)
        wanted: dict[str, Any] = {"state": {"desired": body.desired}, "version": body.version}
        request = ShadowRequest(wanted, size=len(msgspec.json.encode(wanted)))
        await aws.shadows.update(thing, name, request, actor=asked.actor)
        return await shadow(asked)

    async def delete_shadow(request: ApiRequest) -> None:
        await aws.shadows.delete(*_shadow_of(request), ShadowRequest({}), actor=request.actor)

    of = "/aws/shadows/{shadow:path}"
    return [
        Endpoint("GET", of, Right.READ, "Return a shadow, by THING or THING/NAME.", shadow),
        Endpoint("PATCH", of, Right.OPERATE, "Update the desired state of a shadow.", change_shadow, ShadowPatch),
        Endpoint("DELETE", of, Right.OPERATE, "Delete a shadow.", delete_shadow, status=204),
    ]


def _shadow_of(request: ApiRequest) -> tuple[ThingName, str]:
    """Return the shadow named by `THING` or `THING/NAME`."""
    given, is_named, name = request["shadow"].partition("/")
    thing = parse_thing_name(given)
    return thing, parse_shadow_name(thing, name) if is_named else ""
