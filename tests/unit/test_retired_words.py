"""Pages, messages, docstrings and names use the field's words, not those that the glossary retired."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
SOURCE = TOP / "src" / "birthmark"
OWN_LANGUAGE = {"docs/reference/glossary.md", "docs/contributing/findings.md", "docs/contributing/how-to-change-it.md"}
"""The glossary lists retired words; the findings name tests and quote reports; recipes contain code."""
PAGES = [
    path
    for path in (*TOP.glob("*.md"), *sorted((TOP / "docs").rglob("*.md")))
    if not path.name.endswith(".ja.md") and path.relative_to(TOP).as_posix() not in OWN_LANGUAGE
]
RETIRED = {
    r"\b(?:taken|takes?|took|taking) (?:\w+ ){0,3}back\b": "revoke, disable, undo, release",
    r"\bon record\b": "registered, enrolled",
    r"\banew\b": "again, new",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"(?i)\bwhoever\b|\bnobody\b|\bsomebody\b|\banybody\b": "the actor",
    r"\b(?:he|his|him)\b": "they, the user",
    r"\bbeside\b": "next to, with, in addition to",
    r"(?i)\bstrangers?\b": "unauthenticated client",
    r"\b(?:those|what) there (?:are|is)\b": "list …",
    r"\bby (?:MQTT|HTTPS?|EST|WebSocket)\b(?!:)": "over",
    r"\bways? out\b": "action, endpoint, sink",
    r"\ba while\b|\bnow and then\b|\bmeanwhile\b": "the time, or the setting",
    r"\b(?:lies|stands?) (?:in|at|on)\b": "is in",
    r"\blets? (?:in|go)\b": "admit, release",
    r"\bshort-lived keys?\b|\bkeys? for a while\b": "temporary credentials",
    r"(?i)\bcomeback\b": "late renewal",
    r"(?<![-\w])[Mm]aker(?:'s|s)?\b(?!-ca\.pem)": "manufacturer",
    r"\bput(?:s|ting)? aside\b": "dead-letter",
    r"\b(?:its|their|the) birthmark\b": "IDevID",
    r"\boperator's certificate": "LDevID",
    r"\bintroduc(?:es|ed) (?:a|the|its|this) device": "bootstrap",
    r"\b(?:EST|the|a) doors?\b": "EST label",
    r"\b(?:a|the|an|listed) authorit(?:y|ies)\b(?! key)": "registration authority, CA certificate",
    r"\blinks? of (?:a|the) root\b": "cross-certificate",
    r"\bexchang(?:e of (?:a|the)|e|es|ed|ing) (?:a |the )?root\b|\broot exchange\b": "root rollover",
    r"\b(?:signed|revocation) answers?\b": "OCSP response",
    r"(?<!ertificate )\brevocation lists?\b": "CRL",
    r"\bCA for (?:a|each|one) purpose\b": "issuing CA",
    r"\b(?:answer|request) files?\b": "signing request, signed response",
    r"\bsoftware chips?\b": "simulated secure element",
    r"\bshared keys?\b": "symmetric key",
    r"\bfirst contact\b(?!\])": "JITR, JITP",
    r"(?<!dead )(?<!dead-)\b(?:a|the|each|every) letters?\b (?:is|waits|goes|was)": "message",
    r"(?i)\binbox(?:es)?\b(?! subscription)": "device queue",
    r"(?i)\bcarriers?\b": "sink",
    r"\bplaces? in (?:a|the) stream\b": "position",
    r"\bunderway\b": "in flight",
    r"(?<!simulation/)\brooms?\b(?!\.py)": "package, module",
    r"\bmachines? that (?:serve as one|leads?)\b": "cluster, leader",
    r"\bsecond persons?\b": "approval",
    r"\btokens? of a person\b": "access token",
    r"\bjourneys?\b": "scenario",
    r"\brefused by name\b": "rejected with a specific error",
    r"\bSee the module\.": "a sentence",
}
"""Words of the glossary's column *retired*, with what replaces them. What needs its context (*figure*, *lane*, *word*,
*wish*, *share*, *turn*) is left to readers."""
ALLOWED = {
    ("docs/reference/commands.md", "or beside, for a file next to the keys"): "a value of an option",
    ("cli/ca/hierarchy.py", "or beside, for a file next to the keys"): "a value of an option",
    ("docs/reference/refusals.md", "issued by EST"): "the agent of the passive",
    ("docs/adr/", "journey"): "history",
    ("agent/", "issued by EST"): "the agent of the passive",
    ("net/host_header_syntax.py", "an authority"): "RFC 9112",
    ("ca/rules/certificate_name_policy.py", "an authority"): "RFC 3986",
    ("webconsole/enroll/parser.py", "on the authority of"): "English",
    ("cli/command_tree.py", "pki maker"): "a former command",
    ("cli/command_tree.py", "pki authority"): "a former command",
    ("secure_elements/softhsm_element.py", "Test maker"): "a name in certificates of earlier releases",
    ("demo/renew.py", "maker.pem"): "a file name",
    ("demo/edge.py", "the door module"): "a module of the demo",
    ("server/backup/removal_replay.py", "the authority"): "a value of the audit log",
}
"""Where a word is right, with the reason."""
STATUSES = frozenset(
    {
        *("not on record", "on record", "on record otherwise", "put on record"),
        *("taken back", "taken back: ", "was taken back", "would be taken back", "would take back"),
    }
)
"""Values in JSON and in databases of earlier releases; people see others (`cli.table`, `webconsole.event_labels`)."""


@cache
def pages() -> list[tuple[str, str]]:
    """Return the lines of pages without code, quotations and placeholders."""
    found = []
    for page in PAGES:
        text = re.sub(r"```.*?```", lambda match: "\n" * match[0].count("\n"), page.read_text(), flags=re.DOTALL)
        for number, line in enumerate(text.splitlines(), 1):
            if not line.startswith("    "):
                prose = re.sub(r"`[^`\n]*`|\]\([^)]*\)|\{[^}]*\}|\"[^\"]*\"", "", line)
                found.append((f"{page.relative_to(TOP).as_posix()}:{number}", prose))
    return found


@cache
def source() -> list[tuple[str, str]]:
    """Return the messages, docstrings and comments of the package."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        if {"migrations", "apps"} & set(path.parts):
            continue
        name = path.relative_to(SOURCE).as_posix()
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
            if token.type == tokenize.STRING and token.string.strip("frb\"'") in STATUSES:
                continue
            if token.type in {tokenize.STRING, tokenize.COMMENT} and " " in token.string:
                found.append((f"{name}:{token.start[0]}", re.sub(r"`[^`\n]*`|\{[^}]*\}", "", token.string)))
    return found


def names() -> Iterator[tuple[str, str]]:
    for path in sorted(SOURCE.rglob("*.py")):
        if "migrations" not in path.parts:
            yield path.relative_to(SOURCE).as_posix(), path.stem
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{path.relative_to(SOURCE).as_posix()}:{node.lineno}", node.name


def findings(texts: list[tuple[str, str]], pattern: str) -> list[str]:
    return [
        f"{where}: {match[0]!r} in {text.strip()[:160]}"
        for where, text in texts
        if (match := re.search(pattern, text))
        and not any(where.startswith(at) and words in text for at, words in ALLOWED)
    ]


@pytest.mark.parametrize("pattern", RETIRED)
def test_a_retired_word_is_on_no_page(pattern: str) -> None:
    assert findings(pages(), pattern) == [], RETIRED[pattern]


@pytest.mark.parametrize("pattern", RETIRED)
def test_a_retired_word_is_in_no_message_docstring_or_comment(pattern: str) -> None:
    assert findings(source(), pattern) == [], RETIRED[pattern]


RETIRED_NAMES = re.compile(
    r"(?i)(?:^|_)(?:anew|mend(?:s|ed)?|strangers?|comeback|makers?|inbox(?:es)?|carriers?|underway|nobody|somebody"
    r"|whoever|beside|losing)(?:_|$)"
)


def test_a_retired_word_is_in_no_name() -> None:
    found = [
        f"{where}: {name}"
        for where, name in names()
        if RETIRED_NAMES.search(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name))
    ]
    assert found == []
