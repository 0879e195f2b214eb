"""Pages, command help and refusals use the field's words; the glossary names what each retired word was replaced by."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
OWN_LANGUAGE = {"docs/reference/glossary.md", "docs/contributing/findings.md"}
"""The glossary lists retired words; the findings name tests and quote reports."""
PAGES = [
    path
    for path in (*TOP.glob("*.md"), *sorted((TOP / "docs").rglob("*.md")))
    if "adr" not in path.parts
    and not path.name.endswith(".ja.md")
    and path.relative_to(TOP).as_posix() not in OWN_LANGUAGE
]
RETIRED = {
    r"\b(?:taken|takes?|took|taking) (?:\w+ ){0,3}back\b": "revoke, disable, undo, release",
    r"\bon record\b": "registered, enrolled",
    r"\banew\b": "again, new",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"(?i)\bwhoever\b|\bnobody\b|\bsomebody\b": "the actor",
    r"\bbeside\b": "next to, with, in addition to",
    r"\bstrangers?\b": "unauthenticated client",
    r"\b(?:those|what) there (?:are|is)\b": "list …",
    r"\bby (?:MQTT|HTTPS?|EST|WebSocket)\b(?!:)": "over",
    r"\bways? out\b": "action, endpoint",
    r"\ba while\b|\bnow and then\b|\bmeanwhile\b": "the time, or the setting",
    r"\b(?:lies|stands?) (?:in|at|on)\b": "is in",
    r"\blets? (?:in|go)\b": "admit, release",
    r"\bshort-lived keys?\b": "temporary credentials",
    r"\bcomeback\b": "late renewal",
    r"\b[Mm]aker(?:'s|s)?\b": "manufacturer",
    r"\bput(?:s|ting)? aside\b": "dead-letter",
}
ALLOWED = {
    ("docs/reference/commands.md", "or beside, next to the keys"): "a value of an option",
    ("docs/reference/refusals.md", "issued by EST"): "the agent of the passive",
    ("docs/reference/refusals.md", "[est.late_renewal."): "a table of the configuration",
}


def prose(page: Path) -> Iterator[tuple[int, str]]:
    """Yield lines without code, quotations and placeholders."""
    text = re.sub(r"```.*?```", lambda found: "\n" * found[0].count("\n"), page.read_text(), flags=re.DOTALL)
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("    "):
            yield number, re.sub(r"`[^`\n]*`|\]\([^)]*\)|\{[^}]*\}|\"[^\"]*\"", "", line)


@pytest.mark.parametrize("pattern", RETIRED)
def test_a_retired_word_is_on_no_page(pattern: str) -> None:
    found = []
    for page in PAGES:
        name = page.relative_to(TOP).as_posix()
        found += [
            f"{name}:{number}: {line.strip()}"
            for number, line in prose(page)
            if re.search(pattern, line) and not any(name == at and words in line for at, words in ALLOWED)
        ]
    assert found == [], RETIRED[pattern]
