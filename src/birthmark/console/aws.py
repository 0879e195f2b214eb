"""The operator interface of AWS IoT: access keys, and what is in the account.

Everything else is asked through AWS's own interface.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from birthmark.awsiot.model import AccessKey, ThingName, parse_shadow_name, parse_thing_name
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.wire.shadows import Request, shadow_json
from birthmark.console.names import ACTOR
from birthmark.console.routing import Asked, Endpoint, PageQuery, Role, Rows


class NewKey(msgspec.Struct):
    """An access key and what it is for."""

    name: str = ""


class ShadowPatch(msgspec.Struct):
    """A patch of what is desired of a thing: null removes, objects are merged. `version` is the one it is meant for."""

    desired: dict[str, Any]
    version: int | None = None


def endpoints(aws: AwsIot) -> Sequence[Endpoint]:
    """Return the routes of `birthmark aws`."""

    async def keys(_asked: Asked) -> Rows:
        return Rows([_key_view(key) for key in aws.keys.all()])

    async def add_key(asked: Asked) -> Any:
        made = await aws.keys.add(asked.body.name, actor=ACTOR)
        return _key_view(made) | {"secret_access_key": made.secret}

    async def remove_key(asked: Asked) -> None:
        await aws.keys.remove(asked["id"], actor=ACTOR)

    async def things(asked: Asked) -> Rows:
        page = await aws.overview.things(asked.query.after, asked.query.limit)
        views = [{"thing": t.name, "type": t.type_name, "certificates": ids} for t, ids in page.items]
        return Rows(views, page.last)

    async def certificates(asked: Asked) -> Rows:
        page = await aws.overview.certificates(asked.query.after, asked.query.limit)
        views = [
            {
                "certificate": known.id,
                "common_name": known.certificate.subject_cn,
                "status": known.status.value,
                "mode": known.mode.value,
                "not_after": known.certificate.not_after.isoformat(),
                "things": things,
                "policies": policies,
            }
            for known, things, policies in page.items
        ]
        return Rows(views, page.last)

    async def shadow(asked: Asked) -> Any:
        thing, name = _shadow_of(asked)
        return msgspec.json.decode(shadow_json(await aws.shadows.get(thing, name), aws.shadows.now()))

    async def change_shadow(asked: Asked) -> Any:
        body: ShadowPatch = asked.body
        thing, name = _shadow_of(asked)
        wanted: dict[str, Any] = {"state": {"desired": body.desired}, "version": body.version}
        request = Request(wanted, size=len(msgspec.json.encode(wanted)))
        await aws.shadows.update(thing, name, request, actor=ACTOR)
        return await shadow(asked)

    async def delete_shadow(asked: Asked) -> None:
        await aws.shadows.delete(*_shadow_of(asked), Request({}), actor=ACTOR)

    of = "/aws/shadows/{shadow:path}"
    return [
        Endpoint("GET", "/aws/keys", Role.VIEWER, "The access keys, without their secrets.", keys),
        Endpoint("POST", "/aws/keys", Role.ADMIN, "Make an access key.", add_key, NewKey, status=201),
        Endpoint("DELETE", "/aws/keys/{id}", Role.ADMIN, "Remove an access key.", remove_key, status=204),
        Endpoint("GET", "/aws/things", Role.VIEWER, "A page of things.", things, query=PageQuery),
        Endpoint("GET", "/aws/certificates", Role.VIEWER, "A page of certificates.", certificates, query=PageQuery),
        Endpoint("GET", of, Role.VIEWER, "A shadow, by THING or THING/NAME.", shadow),
        Endpoint("PATCH", of, Role.OPERATOR, "Change what is desired in a shadow.", change_shadow, ShadowPatch),
        Endpoint("DELETE", of, Role.OPERATOR, "Delete a shadow.", delete_shadow, status=204),
    ]


def _shadow_of(asked: Asked) -> tuple[ThingName, str]:
    """Return the shadow of `THING` or `THING/NAME`."""
    given, is_named, name = asked["shadow"].partition("/")
    thing = parse_thing_name(given)
    return thing, parse_shadow_name(thing, name) if is_named else ""


def _key_view(key: AccessKey) -> dict[str, Any]:
    return {"access_key_id": key.id, "name": key.name, "created": key.created_at.isoformat()}
