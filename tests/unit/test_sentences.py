"""Sentences of pages and docstrings have at most 26 words; a longer one becomes two, or a list."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).parents[2]
MAX_WORDS = 26
_ITEM = re.compile(r"\n(?=\s*(?:[-*|#>]|\d+\.) ?)")
_MARK = re.compile(r"^\s*(?:[-*>#]+|\d+\.)\s+")
_END = re.compile(r"(?<=[.!?])\s+|(?<=[.!?][)”\"*])\s+")
"""A sentence may begin with code, in lower case."""
QUOTES = {"findings.md"}
"""It quotes reports."""


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of prose; code counts as one word, and links by their texts."""
    for paragraph in re.split(r"\n\s*\n", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        for item in _ITEM.split(paragraph):
            if not item.startswith("    ") and not item.lstrip().startswith("|"):
                prose = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "code", item))
                yield from _END.split(_MARK.sub("", prose).replace("\n", " "))


def too_long(text: str) -> list[str]:
    return [sentence for sentence in sentences(text) if len(sentence.split()) > MAX_WORDS]


def test_sentences_of_pages_are_short() -> None:
    pages = [*TOP.glob("*.md"), *sorted((TOP / "docs").rglob("*.md"))]
    found = {
        page.relative_to(TOP).as_posix(): long
        for page in pages
        if not page.name.endswith(".ja.md") and page.name not in QUOTES and (long := too_long(page.read_text()))
    }
    assert found == {}


def test_sentences_of_docstrings_are_short() -> None:
    found = {}
    for path in sorted((TOP / "src" / "birthmark").rglob("*.py")):
        if not {"migrations", "apps"} & set(path.parts):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    long = too_long(ast.get_docstring(node) or "")
                    if long:
                        found[f"{path.relative_to(TOP)}: {getattr(node, 'name', 'module')}"] = long
    assert found == {}
