"""JSON in command-line arguments."""

import json
import math
from typing import Any

import typer

from birthmark.text_file_encodings import unseen
from birthmark.untrusted_json_and_text import KeyTwiceError, keys_once, printable

_MOST_SHOWN = 40


def json_of(text: str, subject: str) -> Any:
    """Parse the JSON of an argument. Raise `typer.BadParameter` with the argument's name."""
    try:
        # Windows byte order mark, passed by the shell
        plain = text.removeprefix("\ufeff")
        return json.loads(plain, object_pairs_hook=keys_once, parse_constant=_refuse, parse_float=_finite)
    except KeyTwiceError as error:
        raise typer.BadParameter(f"{subject}: {error}; leave one") from error
    except json.JSONDecodeError as error:
        seen = unseen(text.replace("\r\n", "\n"), error.lineno)
        raise typer.BadParameter(f"{subject} is not JSON: {error}{seen}") from error
    except (ValueError, RecursionError) as error:  # thousands of digits
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise typer.BadParameter(f"{subject} is not JSON: {said}") from error


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is not a JSON number")


def _finite(word: str) -> float:
    if not math.isfinite(number := float(word)):
        raise ValueError(f"the number {printable(word[:_MOST_SHOWN])} is too large for JSON programs")
    return number


def object_of(text: str | None, subject: str) -> dict[str, Any] | None:
    """Return the JSON object in an argument, None if it was not given. Raise `typer.BadParameter`."""
    if text is None:
        return None
    found = json_of(text, subject)
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{subject} is not a JSON object")
    return found
