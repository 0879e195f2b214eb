"""Operator API of the AWS IoT registry: details of a thing or certificate, groups, policies, searches."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.awsiot.model import (
    DeviceCertificate,
    NamedPolicy,
    ThingGroup,
    group_of,
    parse_certificate_id,
    parse_thing_name,
    target_of_group,
)
from birthmark.awsiot.rules.reserved_topics import REASONS
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.search_results import FoundThing
from birthmark.awsiot.wire.index_query import SearchIndex, parse_query
from birthmark.broker import Namespace
from birthmark.operator_api.api_router import ApiRequest, Endpoint, PageQuery, Rows
from birthmark.store import from_micros
from birthmark.store.pagination import Page

_MOST = 100
"""Maximum number of attached items shown; more are indicated."""


class SearchQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Search in AWS's query language for things or, with `groups`, thing groups."""

    query: str
    groups: bool = False
    after: str = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=250)] = 100


def endpoints(aws: AwsIot, space: Namespace) -> Sequence[Endpoint]:
    """Return the routes of `birthmark aws thing|certificate|group|policy show` and `birthmark aws search`."""
    return [*_of_devices(aws, space), *_of_many(aws)]


def _of_devices(aws: AwsIot, space: Namespace) -> Sequence[Endpoint]:
    """Return the routes for one thing, one certificate, and searches."""

    async def thing(request: ApiRequest) -> Any:
        known = await aws.things.get(parse_thing_name(request["name"]))
        held = await aws.attachments.principals(known.name, "", _MOST)
        certificates = []
        for certificate_id, kind in held.items:
            found = await aws.certificates.find(certificate_id)
            policies = await aws.policies.attached(certificate_id, "", _MOST)
            certificates.append(
                {
                    "certificate": certificate_id,
                    "status": None if found is None else found.status.value,
                    "exclusive": kind.value == "EXCLUSIVE_THING",
                    "policies": list(policies.items),
                }
            )
        above, by_groups = await aws.policies.of_groups(known.name)
        return {
            "thing": known.name,
            "type": known.type_name,
            "attributes": dict(known.attributes),
            "version": known.version,
            "created": known.created_at.isoformat(),
            "groups": list((await aws.thing_groups.groups_of(known.name, "", _MOST)).items),
            "policies_by_groups": {"groups": sorted(above), "policies": sorted(by_groups)},
            "certificates": certificates,
            "more_certificates": held.last is not None,
            "connection": await _connection(space, known.name),
        }

    async def certificate(request: ApiRequest) -> Any:
        known = await aws.certificates.get(parse_certificate_id(request["id"]))
        things = await aws.attachments.things(known.id, "", _MOST)
        policies = await aws.policies.attached(known.id, "", _MOST)
        return {
            **_certificate_view(known),
            "things": [name for name, _ in things.items],
            "more_things": things.last is not None,
            "policies": list(policies.items),
            "pem": known.certificate.pem(),
        }

    async def search(request: ApiRequest) -> Rows:
        query: SearchQuery = request.query
        place = SearchIndex.GROUPS if query.groups else SearchIndex.THINGS
        page = await aws.index.search(place, parse_query(query.query, place), query.after, query.limit)
        if query.groups:
            return Rows([_group_view(one) for one in await aws.found.groups(page.items)], page.last)
        return Rows([_found_view(one) async for one in aws.found.things(page.items)], page.last)

    read = Right.READ
    return [
        Endpoint("GET", "/aws/things/{name}", read, "Return a thing and its connectivity.", thing),
        Endpoint("GET", "/aws/certificates/{id}", read, "Return a certificate.", certificate),
        Endpoint("GET", "/aws/search", read, "Search the fleet index.", search, query=SearchQuery),
    ]


def _of_many(aws: AwsIot) -> Sequence[Endpoint]:
    """Return the routes for resources that devices share: groups and policies."""

    async def groups(request: ApiRequest) -> Rows:
        page = await aws.thing_groups.page(request.query.after, request.query.limit, "")
        return Rows([_group_view(one) for one in page.items], page.last)

    async def group(request: ApiRequest) -> Any:
        known = await aws.thing_groups.get(request["name"])
        below = await aws.thing_groups.page("", _MOST, "", parent=known.name, recursive=False)
        things: Page[str] | None = None
        if known.query is None:  # for dynamic groups use the search: birthmark aws search
            things = await aws.thing_groups.things_in(known.name, "", _MOST)
        policies = await aws.policies.attached(target_of_group(known.name), "", _MOST)
        return {
            **_group_view(known),
            "attributes": dict((known.properties.get("attributePayload") or {}).get("attributes") or {}),
            "version": known.version,
            "groups": [one.name for one in below.items],
            "more_groups": below.last is not None,
            "things": None if things is None else list(things.items),
            "more_things": things is not None and things.last is not None,
            "policies": list(policies.items),
        }

    async def policies(request: ApiRequest) -> Rows:
        page = await aws.policies.page(request.query.after, request.query.limit, ascending=True)
        return Rows([_policy_view(one) for one in page.items], page.last)

    async def policy(request: ApiRequest) -> Any:
        known, version = await aws.policies.version(request["name"])
        targets = await aws.policies.targets(known.name, "", _MOST)
        return {
            **_policy_view(known),
            "certificates": [one for one in targets.items if group_of(one) is None],
            "groups": [name for one in targets.items if (name := group_of(one)) is not None],
            "more_targets": targets.last is not None,
            "document": json.loads(version.document),
        }

    read = Right.READ
    return [
        Endpoint("GET", "/aws/groups", read, "List thing groups.", groups, query=PageQuery),
        Endpoint("GET", "/aws/groups/{name}", read, "Return a thing group.", group),
        Endpoint("GET", "/aws/policies", read, "List policies.", policies, query=PageQuery),
        Endpoint("GET", "/aws/policies/{name}", read, "Return a policy with its default document.", policy),
    ]


async def _connection(space: Namespace, client: str) -> Mapping[str, Any]:
    """Return the connection state of a thing's client: connected since, or disconnected since and why."""
    known = await space.asked.client(client)
    if known is not None and known.is_connected:
        return {"connected": True, "since": None if known.since is None else from_micros(known.since).isoformat()}
    seen = (await space.get_last_contacts([client])).get(client)
    if seen is None or seen.reason is None:
        return {"connected": False}
    return {"connected": False, "since": from_micros(seen.at).isoformat(), "reason": REASONS[seen.reason]}


def _certificate_view(certificate: DeviceCertificate) -> dict[str, Any]:
    def moment(timestamp: datetime | None) -> str | None:
        return None if timestamp is None else timestamp.isoformat()

    return {
        "certificate": certificate.id,
        "common_name": certificate.certificate.subject_cn,
        "issuer": certificate.certificate.issuer_text,
        "status": certificate.status.value,
        "mode": certificate.mode.value,
        "ca": certificate.ca_id,
        "not_before": certificate.certificate.not_before.isoformat(),
        "not_after": certificate.certificate.not_after.isoformat(),
        "created": certificate.created_at.isoformat(),
        "claim": certificate.claim is not None,
        "claim_template": certificate.claim or None,
        "goes": moment(certificate.until),
        "replaces": certificate.replaces,
    }


def _group_view(group: ThingGroup) -> dict[str, Any]:
    return {
        "group": group.name,
        "parent": group.parent,
        "query": None if group.query is None else json.loads(group.query).get("queryString"),
        "description": group.properties.get("thingGroupDescription"),
        "created": group.created_at.isoformat(),
    }


def _policy_view(policy: NamedPolicy) -> dict[str, Any]:
    return {
        "policy": policy.name,
        "version": policy.default_version,
        "created": policy.created_at.isoformat(),
        "changed": policy.modified_at.isoformat(),
    }


def _found_view(thing: FoundThing) -> dict[str, Any]:
    """Return a search result; `connected` is null if connectivity is not indexed."""
    connected = thing.presence.get("connected")
    return {
        "thing": thing.thing.name,
        "type": thing.thing.type_name,
        "groups": list(thing.groups),
        "attributes": dict(thing.thing.attributes),
        "connected": None if connected is None else connected == "true",
    }
