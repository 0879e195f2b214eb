"""Fleet indexing: configuration, searches, and dynamic thing groups."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from birthmark.awsiot import wire
from birthmark.awsiot.http.operation_routing_and_request_members import AwsRequest
from birthmark.awsiot.http.tags import tags_of
from birthmark.awsiot.http.thing_groups import properties_of
from birthmark.awsiot.model import MemberNotServedError, parse_thing_name
from birthmark.awsiot.rules.index_aggregations import USUAL_PERCENTS, buckets, percentiles, statistics
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.fleet_index import UnknownIndexError
from birthmark.awsiot.wire.index_query import QueryInvalidError, SearchIndex, is_field, parse_query
from birthmark.awsiot.wire.shadows import shadow_values
from birthmark.net.fair_scheduler import collect_page
from birthmark.store.pagination import marker_of, page_of, parse_marker

VERSION = "2017-09-30"
_MOST, _USUAL = 500, 100
Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
_PLACES = {place.value: place for place in SearchIndex}


class IndexingOperations:
    """The operations of the index."""

    def __init__(self, aws: AwsIot) -> None:
        self._index = aws.index
        self._found = aws.found
        self._groups = aws.thing_groups

    # ---- indexed data

    async def get_indexing_configuration(self, _call: AwsRequest) -> Any:
        known = await self._index.indexing()
        return {
            "thingIndexingConfiguration": {"thingIndexingMode": "OFF"} | dict(known.things),
            "thingGroupIndexingConfiguration": {"thingGroupIndexingMode": "OFF"} | dict(known.groups),
        }

    async def update_indexing_configuration(self, request: AwsRequest) -> None:
        things = request.part("thingIndexingConfiguration", wire.ThingIndexing)
        groups = request.part("thingGroupIndexingConfiguration", wire.ThingGroupIndexing)
        if things is not None and things.device_defender_indexing_mode not in {None, "OFF"}:
            member = "thingIndexingConfiguration.deviceDefenderIndexingMode"
            raise MemberNotServedError(member=member, operation=request.operation.name)
        await self._index.configure(
            None if things is None else wire.given_json(things),
            None if groups is None else wire.given_json(groups),
            actor=request.actor,
        )

    async def list_indices(self, request: AwsRequest) -> Any:
        known = await self._index.indexing()
        names = sorted(place.value for place in SearchIndex if known.has(place) and place.value > request.after)
        return request.paged("indexNames", names[: request.size], page_of(names, request.size, names))

    async def describe_index(self, request: AwsRequest) -> Any:
        place, known = _place(request), await self._index.indexing()
        if not known.has(place):
            raise UnknownIndexError(index=place.value)
        more = known.has_shadow("") * "_AND_SHADOW" + known.has_presence * "_AND_CONNECTIVITY_STATUS"
        schema = "REGISTRY" + (more if place is SearchIndex.THINGS else "")
        status = "ACTIVE" if known.is_ready else "BUILDING"
        return {"indexName": place.value, "indexStatus": status, "schema": schema}

    # ---- searching

    async def search_index(self, request: AwsRequest) -> Any:
        place, size = _place(request), request.number("maxResults")
        if size is not None and not 1 <= size <= _MOST:
            raise wire.BodyInvalidError(detail=f"maxResults is not between 1 and {_MOST}")
        query = parse_query(request["queryString"], place)
        page = await self._index.search(place, query, parse_marker(request.get("nextToken")), size or _USUAL)
        last = page.last
        if place is SearchIndex.THINGS:
            shown = await collect_page(self._things_json(page.items), lambda one: len(one.get("shadow", "")))
            answer: dict[str, Any] = {"things": shown}
            if shown and (name := shown[-1]["thingName"]) < page.items[-1]:
                last = name  # the next page has the rest
        else:
            answer = {"thingGroups": await self._groups_json(page.items)}
        return answer | ({} if last is None else {"nextToken": marker_of(last)})

    async def get_statistics(self, request: AwsRequest) -> Any:
        return {"statistics": statistics(await self._values(request))}

    async def get_cardinality(self, request: AwsRequest) -> Any:
        return {"cardinality": len({*await self._values(request)})}

    async def get_percentiles(self, request: AwsRequest) -> Any:
        percents = request.part("percents", list[Percent]) or USUAL_PERCENTS
        found = percentiles(await self._values(request), percents)
        return {"percentiles": [{"percent": percent, "value": value} for percent, value in found]}

    async def get_buckets_aggregation(self, request: AwsRequest) -> Any:
        asked = request.part("bucketsAggregationType", wire.BucketsAggregation)
        if asked is None:
            raise wire.BodyInvalidError(detail="bucketsAggregationType is missing")
        values, most = await self._values(request), asked.terms_aggregation.max_buckets
        count = len(await self._index.search_all(_place(request), parse_query(request["queryString"], _place(request))))
        told = [{"keyValue": value, "count": number} for value, number in buckets(values, most)]
        return {"totalCount": count, "buckets": told}

    async def _values(self, request: AwsRequest) -> Sequence[str]:
        """Return the values of the requested field of the things that match a query."""
        place = _place(request)
        query, field = parse_query(request["queryString"], place), request.get("aggregationField") or "registry.version"
        if not is_field(field, place):
            raise QueryInvalidError(detail=f"the field {field[:80]!r} does not exist in {place.value}")
        return await self._index.values(place, query, field)

    async def _things_json(self, names: Sequence[str]) -> AsyncIterator[dict[str, Any]]:
        async for one in self._found.things(names):
            thing = one.thing
            told: dict[str, Any] = {"thingName": thing.name, "thingId": thing.thing_id}
            if thing.type_name is not None:
                told["thingTypeName"] = thing.type_name
            told["thingGroupNames"] = list(one.groups)
            told["attributes"] = dict(thing.attributes)
            if one.shadows:
                shadow: dict[str, Any] = {}
                for each in one.shadows:
                    (shadow.setdefault("name", {}) if each.name else shadow).update(
                        {each.name: shadow_values(each)} if each.name else shadow_values(each)
                    )
                told["shadow"] = json.dumps(shadow)
            if one.presence:
                told["connectivity"] = _connectivity(one.presence)
            yield told

    async def _groups_json(self, names: Sequence[str]) -> list[dict[str, Any]]:
        found = []
        for group in await self._found.groups(names):
            described = group.properties
            told: dict[str, Any] = {"thingGroupName": group.name, "thingGroupId": group.group_id}
            if description := described.get("thingGroupDescription"):
                told["thingGroupDescription"] = description
            told["attributes"] = (described.get("attributePayload") or {}).get("attributes") or {}
            told["parentGroupNames"] = [] if group.parent is None else [group.parent]
            found.append(told)
        return found

    # ---- dynamic groups

    async def create_dynamic_thing_group(self, request: AwsRequest) -> Any:
        given, name = properties_of(request), parse_thing_name(request["thingGroupName"])
        query = await self._query(request)
        made = await self._groups.create(
            name,
            given.description,
            given.attributes,
            None,
            query=query,
            tags=tags_of(request, name),
            actor=request.actor,
        )
        named = wire.thing_group_name_json(request.account, made) | {"thingGroupId": made.group_id}
        return named | wire.dynamic_json(made)

    async def update_dynamic_thing_group(self, request: AwsRequest) -> Any:
        given, name = properties_of(request), request["thingGroupName"]
        known = json.loads((await self._groups.dynamic(name)).query or "{}")
        asked = any(request.get(one) is not None for one in ("queryString", "indexName", "queryVersion"))
        made = await self._groups.update(
            name,
            given.description,
            given.attributes,
            merge=given.merges,
            expected=request.number("expectedVersion"),
            query=await self._query(request, known) if asked else None,
            actor=request.actor,
        )
        return {"version": made.version}

    async def delete_dynamic_thing_group(self, request: AwsRequest) -> None:
        name = request["thingGroupName"]
        await self._groups.check_deletable_as_dynamic(name)
        await self._groups.delete(name, request.number("expectedVersion"), actor=request.actor)

    async def _query(self, request: AwsRequest, values: dict[str, Any] | None = None) -> str:
        """Return the stored query of a dynamic group. Raise `QueryInvalidError`, `IndexNotReadyError`."""
        place, text = _place(request), request.get("queryString") or (values or {}).get("queryString", "")
        if place is not SearchIndex.THINGS:
            raise wire.BodyInvalidError(detail=f"the indexName of a dynamic group is {SearchIndex.THINGS.value}")
        parse_query(text, place)
        await self._index.ready(place)
        return json.dumps({"indexName": place.value, "queryString": text, "queryVersion": VERSION})


def _connectivity(presence: Mapping[str, str]) -> dict[str, Any]:
    told: dict[str, Any] = {"connected": presence.get("connected") == "true"}
    if "timestamp" in presence:
        told["timestamp"] = int(presence["timestamp"])
    if "disconnectReason" in presence:
        told["disconnectReason"] = presence["disconnectReason"]
    return told


def _place(request: AwsRequest) -> SearchIndex:
    """Return the requested index after checking the query version. Raise `UnknownIndexError`."""
    name = request.get("indexName") or SearchIndex.THINGS.value
    version = request.get("queryVersion") or VERSION
    if version != VERSION:
        raise wire.BodyInvalidError(detail=f"the queryVersion is {version[:20]!r} and not {VERSION}")
    if name not in _PLACES:
        raise UnknownIndexError(index=name[:128])
    return _PLACES[name]
