"""Messages in the form of an endpoint: JSON envelope, enrichments, file path and topic."""

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from birthmark.broker.rules.stream_partitions_and_positions import key_of, partition_of
from birthmark.iothub.model import TelemetryMessage
from birthmark.iothub.rules.routes.route_matcher import event_time, system_properties
from birthmark.iothub.wire.stored_routing_configuration import (
    Enrichment,
)
from birthmark.iothub.wire.times_and_body_validation import to_json
from birthmark.text_file_encodings import plain_text
from birthmark.untrusted_json_and_text import decode_json


def envelope(
    message: TelemetryMessage, body: Any, enrichments: Sequence[Enrichment], hub: str, twin: Mapping[str, Any] | None
) -> bytes:
    """Return the output JSON of a message; `body` is that of `shown_body`."""
    properties = {name: value or "" for name, value in message.properties.items()}
    for one in enrichments:
        properties[one.key] = _enrichment_value(one.value, hub, twin)
    system = system_properties(message)
    shown = {
        "EnqueuedTimeUtc": system["enqueuedTime"],
        "Properties": properties,
        "SystemProperties": system,
        "Body": body,
    }
    return to_json(shown)


def shown_body(message: TelemetryMessage) -> Any:
    """Return a message's body in output format."""
    system = system_properties(message)
    kind = system.get("contentType", "").split(";")[0].strip().lower()
    if kind == "application/json" and system.get("contentEncoding", "").lower() == "utf-8":
        try:
            decode_json(message.body)  # invalid numbers and half surrogates are never valid JSON
            return msgspec.Raw(plain_text(message.body).replace(b"\r", b" ").replace(b"\n", b" "))  # one line
        except (ValueError, RecursionError):
            pass
    return base64.b64encode(message.body).decode()


def _enrichment_value(value: str, hub: str, twin: Mapping[str, Any] | None) -> str:
    """Return the value of an enrichment; a path without a primitive value is kept as text, as in Azure."""
    if value == "$iothubname":
        return hub
    if not value.startswith("$twin."):
        return value
    found: Any = twin
    for name in value.split(".")[1:]:
        found = found.get(name) if isinstance(found, Mapping) else None
    if found is None or isinstance(found, Mapping | list):
        return value
    return found if isinstance(found, str) else to_json(found).decode()


def file_of(file_name: str, hub: str, message: TelemetryMessage) -> str:
    """Return the file path of a message, below its endpoint's folder."""
    at = event_time(message)
    parts = {
        "iothub": hub,
        "partition": str(partition_of(key_of(message.device_id))),
        "YYYY": f"{at:%Y}",
        "MM": f"{at:%m}",
        "DD": f"{at:%d}",
        "HH": f"{at:%H}",
        "mm": f"{at:%M}",
    }
    return _TOKEN.sub(lambda found: parts[found[1]], file_name)


def topic_of(topic: str, hub: str, device_id: str) -> str:
    """Return the topic or subject of a message.

    A device's name adds neither a level nor a wildcard: all but letters, digits, - and _ are percent-encoded.
    """
    return _TOKEN.sub(lambda found: _level(hub if found[1] == "iothub" else device_id), topic)


def _level(name: str) -> str:
    return "".join(one if one.isalnum() or one in "-_" else f"%{ord(one):02X}" for one in name)


_TOKEN = re.compile(r"\{(\w+)\}")
