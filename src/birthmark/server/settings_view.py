"""Views of the current settings: value, default, description and other sources. Pure functions.

Secrets are excluded: files and references are named, and parts of URLs that may be secret are removed.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

import msgspec

from birthmark.net.listener_limits import Limits
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
"""Options and variables that set a key besides the file."""
_OF_SEVERAL = {"est.labels", "est.late_renewal", "ca.profiles", "oidc", "functions", "roles"}


def views_of(settings: Settings) -> list[dict[str, Any]]:
    """Return every setting, grouped by table."""
    plain = Settings()
    limits = zip(_limits(settings.bounds()), _limits(Limits()), strict=True)
    pairs = [*_walk("", settings, plain), *((key, value, usual) for (key, value), (_, usual) in limits)]
    return [_row(key, value, usual) for key, value, usual in pairs]


def _row(key: str, value: Any, usual: Any) -> dict[str, Any]:
    begin = next((one for one in _OF_SEVERAL if key.startswith(f"{one}.")), None)
    texts = {
        "key": key,
        "value": format_toml_value(value),
        "default": format_toml_value(usual),
        "is_changed": value != usual,
    }
    return {**texts, "text": TEXTS[key if begin is None else f"{begin}.NAME"], "also": list(_BESIDE.get(key, ()))}


def _walk(begin: str, given: msgspec.Struct, plain: msgspec.Struct) -> Iterator[tuple[str, Any, Any]]:
    """Yield key, value and default: fixed tables key by key, repeated tables by their name."""
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


def format_toml_value(value: Any) -> str:
    """Return a value in the notation of the file; empty for an unset value."""
    match value.value if isinstance(value, Enum) else value:
        case None | "":
            text = ""
        case bool():
            text = str(value).lower()
        case float() if value.is_integer():
            text = str(int(value))
        case str(said):
            text = json.dumps(redact_url(said), ensure_ascii=False)
        case msgspec.Struct():
            text = format_toml_value({name: getattr(value, name) for name in value.__struct_fields__})
        case Mapping():
            parts = [f"{name} = {inner}" for name, one in value.items() if (inner := format_toml_value(one))]
            text = f"{{ {', '.join(parts)} }}" if parts else "{}"
        case Sequence():
            text = f"[{', '.join(map(format_toml_value, value))}]"
        case _:
            text = str(value)
    return text


def redact_url(text: str) -> str:
    """Return a URL without credentials and query; other text is unchanged."""
    if "://" not in text:
        return text
    parts = urlsplit(text)
    place = f"{LEFT_OUT}@{parts.netloc.rpartition('@')[2]}" if "@" in parts.netloc else parts.netloc
    return f"{parts.scheme}://{place}{parts.path}{f'?{LEFT_OUT}' if parts.query else ''}"
