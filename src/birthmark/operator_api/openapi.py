"""OpenAPI 3.1 description of the operator interface, from its endpoint table."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from birthmark import __version__
from birthmark.iam.idempotency_model import MAX_KEY_CHARS
from birthmark.operator_api.api_router import IDEMPOTENCY_KEY, PROBLEM, ROOT, EmptyBody, Endpoint, PageQuery

_PROBLEM = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("type", "title", "detail", "code", "fix")}
    | {"status": {"type": "integer"}},
    "required": ["type", "title", "status", "detail", "code", "fix"],
}
_LIST = {
    "type": "object",
    "properties": {"items": {"type": "array", "items": {"type": "object"}}, "next": {"type": ["string", "null"]}},
    "required": ["items", "next"],
}
_ONCE = {
    "name": IDEMPOTENCY_KEY,
    "in": "header",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY_CHARS},
    "description": "A name for this request: sent again within a day, it gets the same answer, and nothing is done.",
}


def openapi(table: Sequence[Endpoint]) -> dict[str, Any]:
    """Return the OpenAPI document."""
    bodies = [one.body for one in table if one.body is not EmptyBody]
    _, schemas = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for one in table:
        paths.setdefault(one.template, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Birthmark operator interface", "version": __version__},
        "servers": [{"url": ROOT}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "parameters": {"Once": _ONCE},
            "schemas": schemas | {"Problem": _PROBLEM, "List": _LIST},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint) -> Mapping[str, Any]:
    told: dict[str, Any] = {
        "summary": endpoint.summary,
        "x-right": endpoint.right.value if endpoint.right else "none",
        "parameters": [
            *({"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in endpoint.names),
            *_in_query(endpoint.query),
            *([] if endpoint.is_repeatable or endpoint.is_open else [{"$ref": "#/components/parameters/Once"}]),
        ],
        "responses": {
            str(endpoint.status): {"description": "Done"} | _content(endpoint),
            "default": {"description": "Refused", "content": {PROBLEM: {"schema": _ref("Problem")}}},
        },
    }
    if endpoint.body is not EmptyBody:
        told["requestBody"] = {"content": {"application/json": {"schema": _ref(endpoint.body.__name__)}}}
    return told


def _content(endpoint: Endpoint) -> dict[str, Any]:
    if endpoint.status == HTTPStatus.NO_CONTENT:
        return {}
    schema = _ref("List") if endpoint.query is PageQuery else {"type": ["object", "array"]}
    return {"content": {"application/json": {"schema": schema}}}


def _in_query(kind: type[msgspec.Struct]) -> list[Mapping[str, Any]]:
    _, found = msgspec.json.schema_components([kind])
    properties: Mapping[str, Any] = found[kind.__name__].get("properties", {})
    return [{"name": name, "in": "query", "schema": schema} for name, schema in properties.items()]


def _ref(name: str) -> Mapping[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
