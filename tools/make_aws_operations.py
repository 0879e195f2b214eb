"""Write src/birthmark/awsiot/http/operations.json from botocore's service models, an operation a line.

python tools/make_aws_operations.py
"""

import json
from pathlib import Path
from typing import Any

import botocore.session

import birthmark

SERVICES = ("iot", "iot-data", "iot-jobs-data")
TARGET = Path(birthmark.__file__).parent / "awsiot" / "http" / "operations.json"


def member(name: str, shape: Any, *, is_required: bool) -> dict[str, Any]:
    """Return one member: where it stands, under which name, and what it may be."""
    told = {
        "name": name,
        "place": shape.serialization.get("location", "body"),
        "wire": shape.serialization.get("name", name),
        "type": shape.type_name,
        "required": is_required,
        "enum": list(getattr(shape, "enum", None) or []),
        "pattern": shape.metadata.get("pattern", ""),
        "min": shape.metadata.get("min"),
        "max": shape.metadata.get("max"),
    }
    return {key: value for key, value in told.items() if value not in (None, "", [], False)}


def row(service: str, model: Any) -> dict[str, Any]:
    """Return one operation."""
    shape = model.input_shape
    members = shape.members if shape else {}
    required = set(shape.required_members) if shape else set()
    whole = (shape.serialization.get("payload") or "") if shape else ""
    told: dict[str, Any] = {
        "name": model.name,
        "service": service,
        "method": model.http["method"],
        "path": model.http["requestUri"].partition("?")[0],
        "members": [member(name, one, is_required=name in required) for name, one in members.items()],
    }
    return told | ({"whole": whole} if whole and members[whole].type_name == "structure" else {})


session = botocore.session.get_session()
rows = []
for service in SERVICES:
    model = session.get_service_model(service)
    rows += [row(service, model.operation_model(name)) for name in model.operation_names]
lines = [json.dumps(one, separators=(",", ":")) for one in rows]
TARGET.write_text("[\n" + ",\n".join(lines) + "\n]\n")
print(f"{len(rows)} operations")
