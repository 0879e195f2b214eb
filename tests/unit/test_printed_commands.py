"""No command that Birthmark prints replaces a file: what it writes is new, or the earlier one keeps another name."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import birthmark

SOURCE = Path(birthmark.__file__).parent
_SHELL = re.compile(r"(?:^|[;&|(] ?)(?:openssl|curl|iconv|base64|cat|mv|cp|tee|printf|echo|awk|sed|dd|ln) ")
_OPTIONS = re.compile(r"\s-(?:out|keyout|CAserial)\s")
_WORDS = {"-out", "-keyout"}
_DOWNLOAD = re.compile(r"curl [^;&|]*(?: -[a-zA-Z]*[oO]| --output) (?!/dev/null)")
_TOOLS = re.compile(r"(?:^|[;&|(] ?)(?P<tool>cp|mv|tee|sed -i|ln -s?f|dd) (?P<rest>[^;&|]+)")
_REDIRECT = re.compile(r"(?<![->0-9&])>(?![>&=])\s*(?!/dev/null)[\w{\"$'./-]")
_KEEPS = re.compile(r"(?:^| )(?:--backup=t\b|-[a-zA-Z]*n|--update=none)")
_ELSEWHERE = {
    "operator_api/client/vendor_tool_environment.py": "a script that writes into the directory that it makes",
}
_ASIDE = re.compile(r"^mv --backup=t (\S+) \S+ && .*> \1(?:$| )")


def commands_of(text: str) -> list[str]:
    if text in _WORDS:  # of a command that is put together of words
        return [text]
    quoted = text.split("`")[1::2]
    return quoted or ([text] if _SHELL.search(text) else [])


def replaces(command: str) -> bool:
    """Say whether a command writes to a name that may be another file's."""
    if (
        command.strip() in _WORDS
        or ("openssl " in command and _OPTIONS.search(f"{command} "))
        or _DOWNLOAD.search(command)
    ):
        return True
    if any(not _KEEPS.search(one["rest"]) for one in _TOOLS.finditer(command)):
        return True
    return bool(_REDIRECT.search(command)) and "set -C" not in command and not _ASIDE.search(command)


def texts_of(path: Path) -> Iterator[str]:
    """Yield each literal with its parts put together, but for what documents the code."""
    tree = ast.parse(path.read_text())
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(one.value) if isinstance(one, ast.Constant) else "{}" for one in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (documents | parts):
            yield node.value


def test_no_printed_command_replaces_a_file() -> None:
    paths = [path for path in sorted(SOURCE.rglob("*.py")) if "demo" not in path.parts]
    named = [(str(path.relative_to(SOURCE)), text) for path in paths for text in texts_of(path)]
    found = [(name, command) for name, text in named if name not in _ELSEWHERE for command in commands_of(text)]
    assert len(found) > 500
    assert [one for one in found if replaces(one[1])] == []


@pytest.mark.parametrize(
    "command",
    [
        "openssl pkcs12 -in {path} -nocerts -noenc -out device.key",
        "(umask 077; cat > pin)",
        "iconv -f UTF-16 -t UTF-8 {path} > {path}.utf8",
        "cp device.pem old.pem",
        "curl -sSf -o cacerts.p7 {url}",
        "birthmark ca sign x --out y && mv x y",
    ],
)
def test_a_command_that_replaces_is_seen(command: str) -> None:
    assert replaces(command)


@pytest.mark.parametrize(
    "command",
    [
        "(set -C; openssl x509 -in {path} > leaf.pem)",
        "mv --backup=t {path} {path}.old && echo '{{}}' > {path}",
        "mv -nT {path} {aside}",
        "openssl pkey -in {key} -pubout",
        "openssl s_client -brief -connect {host} < /dev/null",
        "cat {issuer} >> {path}",
    ],
)
def test_a_command_that_replaces_nothing_is_allowed(command: str) -> None:
    assert not replaces(command)
