"""JSON Schema (2020-12) of the event catalog, for receivers that validate events."""

from collections.abc import Mapping
from typing import Any

from birthmark.events.event_types import CHANGED, KINDS, RENEWED, SPEC, EventKind

_TEXT: Mapping[str, Any] = {"type": "string"}
_NAMES = ("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data")


def schema() -> dict[str, Any]:
    """Return the schema of an event: one of the event types, each with its actions."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Events of a Birthmark server: CloudEvents 1.0, JSON format",
        "type": "object",
        "required": list(_NAMES),
        "properties": {
            "specversion": {"const": SPEC},
            "id": {"description": "Unique with `source`: the worker's chain and a sequence number.", **_TEXT},
            "source": {"description": "Which server.", "format": "uri-reference", **_TEXT},
            "subject": {"description": "Object of the event.", **_TEXT},
            "time": {"format": "date-time", **_TEXT},
            "datacontenttype": {"const": "application/json"},
        },
        "oneOf": [_of(kind) for kind in KINDS],
    }


def _of(kind: EventKind) -> Mapping[str, Any]:
    action: Mapping[str, Any] = {"enum": sorted(kind.actions)} if kind.actions else _TEXT
    data: dict[str, Any] = {
        "type": "object",
        "required": ["action", "actor"],
        "properties": {
            "action": action,
            "actor": {"description": "User, device or service that performed the action.", **_TEXT},
        },
    }
    if kind.type == RENEWED:
        data["properties"] = {**data["properties"], "action": {"const": "certificate.issue"}, "renews": _TEXT}
        data["required"] = [*data["required"], "renews"]
    if kind.type == CHANGED:
        taken = sorted(action for one in KINDS for action in one.actions)
        data["properties"] = {**data["properties"], "action": {"not": {"enum": taken}, **_TEXT}}
    return {"title": kind.tells, "properties": {"type": {"const": kind.type}, "data": data}}
