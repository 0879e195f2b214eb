"""The settings in force as they are shown: each with its default, what it is, and what else sets it. Pure.

No secret is among them: files and references are named, and of URLs what may be one is left out.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

import msgspec

from birthmark.net.limits import Limits
from birthmark.server.settings import Settings
from birthmark.server.settings_descriptions import TEXTS

LEFT_OUT = "…"
_BESIDE: Mapping[str, Sequence[str]] = {
    "data": ("--data", "BIRTHMARK_DATA"),
    "listen": ("--listen", "BIRTHMARK_LISTEN"),
    "host": ("--host", "BIRTHMARK_HOST"),
    "database": ("--database", "BIRTHMARK_DATABASE"),
    "bus": ("--bus", "BIRTHMARK_BUS"),
    "workers": ("--workers",),
    "only": ("--only",),
    "health_listen": ("--health-listen",),
}
"""What sets it besides the file."""
_OF_SEVERAL = {"est.labels", "est.comeback", "ca.profiles", "oidc", "functions", "roles"}


def views_of(settings: Settings) -> list[dict[str, Any]]:
    """Return every setting, those of a table together."""
    plain = Settings()
    limits = zip(_limits(settings.bounds()), _limits(Limits()), strict=True)
    pairs = [*_walk("", settings, plain), *((key, value, usual) for (key, value), (_, usual) in limits)]
    return [_row(key, value, usual) for key, value, usual in pairs]


def _row(key: str, value: Any, usual: Any) -> dict[str, Any]:
    begin = next((one for one in _OF_SEVERAL if key.startswith(f"{one}.")), None)
    texts = {"key": key, "value": written(value), "default": written(usual), "is_changed": value != usual}
    return {**texts, "text": TEXTS[key if begin is None else f"{begin}.NAME"], "also": list(_BESIDE.get(key, ()))}


def _walk(begin: str, given: msgspec.Struct, plain: msgspec.Struct) -> Iterator[tuple[str, Any, Any]]:
    """Yield key, value and default; a table that is always there by its keys, one of several by its name."""
    for name in given.__struct_fields__:
        if not begin and name == "limits":
            continue
        key, value, usual = f"{begin}{name}", getattr(given, name), getattr(plain, name)
        if key in _OF_SEVERAL:
            yield from ((f"{key}.{one}", table, None) for one, table in value.items())
            if not value:
                yield key, None, None
        elif isinstance(value, msgspec.Struct) and isinstance(usual, msgspec.Struct) and key != "est.subject":
            yield from _walk(f"{key}.", value, usual)
        else:
            yield key, value, usual


def _limits(limits: Limits) -> list[tuple[str, Any]]:
    return [(f"limits.{one.name}", getattr(limits, one.name)) for one in dataclasses.fields(limits)]


def written(value: Any) -> str:
    """Return a value as a file says it; nothing for what is not said."""
    match value.value if isinstance(value, Enum) else value:
        case None | "":
            text = ""
        case bool():
            text = str(value).lower()
        case float() if value.is_integer():
            text = str(int(value))
        case str(said):
            text = json.dumps(without_secrets(said), ensure_ascii=False)
        case msgspec.Struct():
            text = written({name: getattr(value, name) for name in value.__struct_fields__})
        case Mapping():
            parts = [f"{name} = {inner}" for name, one in value.items() if (inner := written(one))]
            text = f"{{ {', '.join(parts)} }}" if parts else "{}"
        case Sequence():
            text = f"[{', '.join(map(written, value))}]"
        case _:
            text = str(value)
    return text


def without_secrets(text: str) -> str:
    """Return a URL without who signs in there and what else it says; any other text as it is."""
    if "://" not in text:
        return text
    parts = urlsplit(text)
    place = f"{LEFT_OUT}@{parts.netloc.rpartition('@')[2]}" if "@" in parts.netloc else parts.netloc
    return f"{parts.scheme}://{place}{parts.path}{f'?{LEFT_OUT}' if parts.query else ''}"
