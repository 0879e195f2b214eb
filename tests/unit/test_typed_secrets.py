"""No command that is printed or written in a page puts a secret where every user of the machine reads it, in /proc."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_errors import every_class

import birthmark

TOP = Path(birthmark.__file__).parents[2]
PAGES = [*TOP.glob("*.md"), *TOP.glob("docs/**/*.md")]
SOURCES = [*TOP.glob("src/birthmark/**/*.py"), *TOP.glob("tools/*.py")]
BUILTINS = {"printf", "echo", "test", "[", "[[", "read", "export", "local", "readonly", "set", "unset", ":", "return"}
"""What a shell does itself, so that no process has it among its arguments."""
FIRST = {"if", "then", "elif", "else", "while", "until", "do", "!", "{", "(", "time"}
READS = re.compile(r"^\s*(<|(cat|head|tail|sed|tr|cut|awk|grep|base64)\b)")
SECRET = re.compile(r"token|passw|passphrase|\bpin\b|_pin|pin_|secret|seed|\.key\b|key\.pem|credential", re.IGNORECASE)
KEPT = re.compile(r"(\w+)=(.*)", re.DOTALL)


def ends_at(line: str, place: int) -> int:
    """Return where the substitution ends whose first character is at `place`."""
    depth, quote = 1, ""
    while place < len(line) and depth:
        char = line[place]
        if quote == "'" or char in "'\"":
            quote = char if not quote else "" if char == quote else quote
        elif char == "\\":
            place += 1
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
        place += 1
    return place


def commands(line: str) -> Iterator[list[str]]:
    """Yield the simple commands of a line as words; those within a substitution, too, which is a part of its word."""
    words, word, quote, place = [], "", "", 0
    while place < len(line):
        char, step = line[place], 1
        if char == "\\" and quote != "'":
            step = 2
        elif quote != "'" and line.startswith("$(", place):
            step = ends_at(line, place + 2) - place
            yield from commands(line[place + 2 : place + step - 1])
        elif quote or char in "'\"":
            quote = char if not quote else "" if char == quote else quote
        elif char in " \t|&;()\n":
            words += [word] if word else []
            word = ""
            if char not in " \t":
                yield words
                words = []
            place += 1
            continue
        elif char == "#" and not word:
            break
        word += line[place : place + step]
        place += step
    yield [*words, *([word] if word else [])]


def secret_in(word: str, known: set[str]) -> bool:
    """Say whether the shell puts into a word what a file of secrets holds, or a variable that was read from one."""
    if any(re.search(rf"\${{?{name}\b", word) for name in known):
        return True
    inner = (word[found.end() : ends_at(word, found.end())] for found in re.finditer(r"\$\(", word))
    return any(READS.search(one) and SECRET.search(one) for one in inner)


def shown(text: str) -> list[str]:
    """Return the commands of a text that give a secret to a program as an argument."""
    found, known = [], set[str]()
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        for words in commands(line):
            typed = list(itertools.dropwhile(lambda word: word in FIRST or KEPT.fullmatch(word), words))
            kept = filter(None, map(KEPT.fullmatch, words[: len(words) - len(typed)]))
            known.update(one[1] for one in kept if secret_in(one[2], known))
            if typed and typed[0] not in BUILTINS and any(secret_in(word, known) for word in typed):
                found.append(" ".join(typed))
    return found


def literals_of(path: Path) -> Iterator[str]:
    """Yield the texts in a source; what is filled in stands there by its name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = (one.value if isinstance(one, ast.Constant) else ast.unparse(one.value) for one in node.values)  # type: ignore[attr-defined]  # the other kind is FormattedValue
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize(
    "line",
    [
        'curl -H "Authorization: Bearer $(cat "$BIRTHMARK_DATA/operator.token")" http://localhost/',
        'true && sudo curl -u "me:$(< password)" http://localhost/',
        'connect --name x \\\n  --pin "$(cat "$BIRTHMARK_PIN_FILE")"',
        'pin=$(head -n 1 pin.txt)\nconnect --pin "$pin"',
        'word=$(login --password "$(cat password)")',
    ],
)
def test_a_secret_among_a_programs_arguments_is_found(line: str) -> None:
    assert shown(line)


@pytest.mark.parametrize(
    "line",
    [
        "sed 's/^/Authorization: Bearer /' operator.token | curl -H @- http://localhost/",
        """printf 'header = "Authorization: Bearer %s"\\n' "$(cat operator.token)" | curl -K - http://localhost/""",
        'export TOKEN="$(cat operator.token)"',
        'aws iot register-certificate --certificate-pem "$(cat "$X509_CERT_FILE")"',
        'chip prove --nonce "$(openssl rand -hex 16)"',
    ],
)
def test_what_a_shell_does_itself_shows_nothing(line: str) -> None:
    assert shown(line) == []


def test_no_fix_puts_a_secret_on_a_command_line() -> None:
    fixes = {cls.code: [one for part in cls.fix.split("`") for one in shown(part)] for cls in every_class()}
    assert {code: found for code, found in fixes.items() if found} == {}


def test_no_source_prints_a_command_that_does() -> None:
    parts = ((path.name, part) for path in SOURCES for text in literals_of(path) for part in text.split("`"))
    assert [(name, found) for name, part in parts for found in shown(part)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(TOP)))
def test_no_page_has_a_command_that_does(page: Path) -> None:
    text = page.read_text().replace("\\|", "|")
    assert shown(text) + [one for part in text.split("`") for one in shown(part)] == []
