"""JSON that was typed."""

import json
from typing import Any

import typer


def json_of(text: str, what: str) -> Any:
    """Return the JSON of an argument. Raise `typer.BadParameter` naming it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{what} is not JSON: {error}") from error


def object_of(text: str | None, what: str) -> dict[str, Any] | None:
    """Return the JSON object of an argument, None where it was not given. Raise `typer.BadParameter`."""
    if text is None:
        return None
    found = json_of(text, what)
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{what} is not a JSON object")
    return found
