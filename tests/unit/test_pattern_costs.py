"""Every regular expression of the source reads a text in time that grows with its length, whatever the text is.

The patterns are collected from the source: those that a module, a class or a table of one keeps, and those written
where they are used. Each is tried with texts made of its own pieces, repeated, and with ends that nearly match.
"""

import ast
import importlib
import itertools
import re
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import birthmark

_parser = importlib.import_module("re._parser")
_ROOT = Path(birthmark.__file__).parent
_SIZE, _TIMES = 1500, 4
_FLOOR_S = 0.0015
"""What no linear pattern takes for the larger text, and every quadratic one does."""
_MAX_RATIO = 6
_FLAGS = {"re.ASCII", "re.DOTALL", "re.IGNORECASE", "re.MULTILINE"}
_READERS = {"match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer"}
_SCANNERS = {"_take", "_peek"}
"""Methods that match a pattern at the place that they reached."""
BOUNDED = {
    "birthmark.awsiot.rules.job_document_placeholders._FILE": "at most 1400 characters per place, in 32 KiB",
    "birthmark.cli.output.command_output._PASSWORD": "what an operator typed",
    "birthmark.toml_validation._UNNAMED": "the path of one key, as msgspec tells of it",
}
"""Patterns that are not linear, and what bounds their texts."""


class Pattern(NamedTuple):
    """A pattern and how it is used."""

    name: str
    compiled: re.Pattern[Any]
    readers: frozenset[str]
    """The methods that are called of it; none that are known: all."""

    def read(self, text: Any) -> None:
        if "match" in self.readers:
            at = 0  # `match` is what scanners call, behind what they read before
            while (found := self.compiled.match(text, at)) is not None and found.end() > at:
                at = found.end()
        if not self.readers or self.readers - {"fullmatch", "match", "search"}:
            for _ in self.compiled.finditer(text):
                pass
        if "search" in self.readers:
            self.compiled.search(text)
        self.compiled.fullmatch(text)


@cache
def _modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(_ROOT.rglob("*.py")):
        text = path.read_text()
        if "import re\n" in text:
            parts = path.relative_to(_ROOT.parent).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = ast.parse(text)
    return found


def _kept(value: Any, name: str, levels: int = 3) -> Iterator[tuple[str, re.Pattern[Any]]]:
    """Yield the patterns that a value is or holds."""
    if isinstance(value, re.Pattern):
        yield name, value
    elif levels and isinstance(value, dict):
        yield from itertools.chain.from_iterable(_kept(one, name, levels - 1) for one in value.values())
    elif levels and isinstance(value, list | tuple):
        yield from itertools.chain.from_iterable(_kept(one, name, levels - 1) for one in value)
    elif isinstance(value, type) and levels:
        for inner, one in vars(value).items():
            yield from _kept(getattr(one, "value", one), f"{name}.{inner}", 1)


def _uses() -> dict[tuple[str, str], frozenset[str]]:
    """Return the methods that are called of a pattern, by module and name; of a public name, by all modules."""
    found: dict[tuple[str, str], frozenset[str]] = {}
    for module, tree in _modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in _READERS:
                holder, reader = node.value, node.attr
            elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in _SCANNERS and node.args:
                holder, reader = node.args[0], "match"
            else:
                continue
            name = holder.id if isinstance(holder, ast.Name) else getattr(holder, "attr", "")
            key = (module if name.startswith("_") else "", name)
            found[key] = found.get(key, frozenset()) | {reader}
    return found


def _written(tree: ast.Module) -> Iterator[tuple[int, re.Pattern[Any], str]]:
    """Yield the patterns that are written where they are used: line, pattern, method."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
            continue
        if not isinstance(node.func.value, ast.Name) or node.func.value.id != "re" or node.func.attr not in _READERS:
            continue
        first = node.args[0]
        if isinstance(first, ast.JoinedStr):  # what is filled in is escaped, or one of ours
            text: Any = "".join(str(one.value) if isinstance(one, ast.Constant) else "x" for one in first.values)
        elif isinstance(first, ast.Constant):
            text = first.value
        else:
            continue
        told = {ast.unparse(one) for one in [*node.args[1:], *(one.value for one in node.keywords)]}
        flags = sum(int(getattr(re, name.removeprefix("re."))) for name in told & _FLAGS)
        yield node.lineno, re.compile(text, flags), node.func.attr


def _patterns() -> Iterator[Pattern]:
    uses, seen = _uses(), set()
    for module, tree in _modules().items():
        for line, compiled, reader in _written(tree):
            yield Pattern(f"{module}:{line}", compiled, frozenset({reader}))
        try:
            kept = vars(importlib.import_module(module))
        except ImportError:  # of a system or an extra that is not here
            continue
        for name, value in kept.items():
            if isinstance(value, type) and value.__module__ != module:
                continue
            for told, compiled in _kept(value, name):
                short = told.rpartition(".")[2]
                if compiled not in seen:
                    seen.add(compiled)
                    readers = uses.get((module if short.startswith("_") else "", short), frozenset())
                    yield Pattern(f"{module}.{told}", compiled, readers)


_INSIDE = {"SUBPATTERN": 3, "MAX_REPEAT": 2, "MIN_REPEAT": 2, "POSSESSIVE_REPEAT": 2, "ASSERT": 1, "ASSERT_NOT": 1}
"""Where a part of a pattern has the parts that it is made of."""


def _pieces(parsed: Any) -> Iterator[str]:
    """Yield short texts that parts of a pattern match: a sign of each set, each run of literals."""
    for name, group in itertools.groupby(parsed, key=lambda part: str(part[0])):
        values = [value for _, value in group]
        if name == "LITERAL":
            yield "".join(map(chr, values))
        elif name == "IN":
            yield from itertools.chain.from_iterable(map(_signs, values))
        elif name == "BRANCH":
            yield from (piece for value in values for one in value[1] for piece in _pieces(one))
        elif name == "ATOMIC_GROUP" or name in _INSIDE:
            inside = values if name == "ATOMIC_GROUP" else [value[_INSIDE[name]] for value in values]
            yield from itertools.chain.from_iterable(map(_pieces, inside))


_OF_CATEGORY = {"CATEGORY_SPACE": " \t\n", "CATEGORY_DIGIT": "0", "CATEGORY_WORD": "a_"}


def _signs(items: Any) -> Iterator[str]:
    for kind, value in items:
        if str(kind) == "LITERAL":
            yield chr(value)
        elif str(kind) == "RANGE":
            yield chr(value[0])
        elif str(kind) == "CATEGORY":
            yield from _OF_CATEGORY.get(str(value), "")


def _texts(pattern: re.Pattern[Any]) -> Iterator[Callable[[int], Any]]:
    """Yield makers of texts of about so many signs."""
    is_bytes = isinstance(pattern.pattern, bytes)
    found = _pieces(_parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG))
    pieces = list(dict.fromkeys([*itertools.islice(found, 40), "a", " ", "\t"]))[:12]
    repeated = [*pieces, *("".join(pair) for pair in itertools.permutations(pieces, 2))]
    begins = ["", *(one for one in pieces if len(one) > 1 or not one.isalnum())][:5]
    for begin, pump, end in itertools.product(begins, repeated, ("", "\x00")):

        def make(size: int, begin: str = begin, pump: str = pump, end: str = end) -> Any:
            text = begin + pump * (size // len(pump)) + end
            return text.encode("latin-1", "replace") if is_bytes else text

        yield make


def _cost(pattern: Pattern, text: Any) -> float:
    began = time.thread_time()
    pattern.read(text)
    return time.thread_time() - began


def _grows(pattern: Pattern, small: Any, large: Any) -> bool:
    """Say whether the larger text costs more than its length says."""
    before, after = (min(_cost(pattern, text) for _ in range(3)) for text in (small, large))
    return after > _FLOOR_S and after > _MAX_RATIO * before


def find_costly_text(pattern: Pattern) -> str | None:
    """Return a text that takes far more than four times as long when it is four times as long."""
    for make in _texts(pattern.compiled):
        small, large = make(_SIZE), make(_SIZE * _TIMES)
        if _cost(pattern, large) > _FLOOR_S and all(_grows(pattern, small, large) for _ in range(6)):
            return repr(large[:40])
    return None


ALL = list(_patterns())


@pytest.mark.parametrize("pattern", ALL, ids=lambda one: one.name)
def test_a_text_four_times_as_long_takes_about_four_times_as_long(pattern: Pattern) -> None:
    assert pattern.name in BOUNDED or find_costly_text(pattern) is None


def test_the_patterns_of_the_source_are_found() -> None:
    assert len(ALL) > 200


def test_a_pattern_that_looks_ahead_from_each_sign_is_caught() -> None:
    """What made a report of 177 KB take eight seconds."""
    old = re.compile(r"^(?=[\t\r\n])|(?:^|(?<=[;\t\r\n]))(?=\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")
    assert find_costly_text(Pattern("old", old, frozenset({"sub"}))) is not None


def test_what_is_listed_as_bounded_is_there() -> None:
    assert set(BOUNDED) <= {one.name for one in ALL}
