"""Write docs/reference/limits.md from tools/limits.md: what stands there between {{ }} is read from the code.

python tools/make_limits.py
"""

import builtins
import importlib
import re
from pathlib import Path
from typing import Any

import birthmark
from birthmark.net.listener_limits import Limits
from birthmark.server.request_body_limits import BODY_LIMITS

SOURCE = Path(__file__).with_name("limits.md")
TARGET = Path(birthmark.__file__).parents[2] / "docs" / "reference" / "limits.md"
_EXPRESSION = re.compile(r"\{\{ (.*?) \}\}")
_MIB, _KIB = 1024 * 1024, 1024


class _Named:
    """A package, whose modules are loaded when they are named."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        package = importlib.import_module(self._name)
        if hasattr(package, name) and not hasattr(package, "__path__"):
            return getattr(package, name)
        try:
            importlib.import_module(f"{self._name}.{name}")
        except ModuleNotFoundError:
            return getattr(package, name)
        return _Named(f"{self._name}.{name}")


class _Packages(dict[str, Any]):
    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)
        return getattr(_Named("birthmark"), name)


def size(count: int) -> str:
    """Return bytes as the page writes them."""
    return f"{count // _MIB} MiB" if count % _MIB == 0 else f"{count // _KIB} KiB"


def number(value: float) -> str:
    """Return a number without a fraction that is none."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def body(path: str) -> str:
    """Return how large the body of a request to a path may be."""
    return f"{dict(BODY_LIMITS)[path.encode()] // _KIB} KiB"


def share_of(service: type[Any], name: str) -> str:
    """Return a limiter's share."""
    limiter = service.__dataclass_fields__[name].default_factory()
    return f"{limiter.burst} in a row, then one in {limiter.every_s:g} s"


def evaluated(expression: str) -> str:
    """Return what an expression over names of the code is."""
    names = _Packages(size=size, number=number, share_of=share_of, body=body)
    return str(eval(expression, {}, names))


def page() -> str:
    """Return the page."""
    return _EXPRESSION.sub(lambda found: evaluated(found[1]), SOURCE.read_text())


def not_named() -> set[str]:
    """Return the settings of `[limits]` that the page has no row of."""
    named = set(re.findall(r"^\| `(\w+)` \|", SOURCE.read_text(), re.MULTILINE))
    return set(Limits.__dataclass_fields__) - named


if __name__ == "__main__":
    TARGET.write_text(page())
    print(f"{len(_EXPRESSION.findall(SOURCE.read_text()))} limits")
