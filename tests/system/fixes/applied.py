"""Fixes that are no command: a literal that is written somewhere as it stands, or nothing but trying again."""

import re
import time
from collections.abc import Callable

from fixes.scene import Scene, literals_in

Apply = Callable[[Scene, str], object]
"""Does what a fix says; what was refused is tried again afterwards."""


def into(*names: str) -> Apply:
    """Put the fix's literals, in their order, into these variables of the shell; "" leaves one out."""

    def apply(scene: Scene, fix: str) -> None:
        literals = literals_in(fix)
        assert len(literals) >= len(names), fix
        scene.environment |= {name: literal for name, literal in zip(names, literals, strict=False) if name}

    return apply


def with_file(name: str, variable: str) -> Apply:
    """Put the option that the fix names into this variable of the shell, with a file's name for FILE."""

    def apply(scene: Scene, fix: str) -> None:
        (option,) = [literal for literal in literals_in(fix) if literal.endswith(" FILE")]
        scene.environment[variable] = option.replace("FILE", name)

    return apply


def configured(number: int = 0) -> Apply:
    """Write the literal, a line of TOML, into the server's configuration file and start the server again."""

    def apply(scene: Scene, fix: str) -> None:
        server, line = scene.server, literals_in(fix)[number]
        assert server is not None
        assert server.config is not None
        key = line.partition("=")[0]
        kept = [one for one in server.config.read_text().splitlines() if one.partition("=")[0] != key]
        server.config.write_text("\n".join([line, *kept, ""]))
        server.stop()
        server.start()

    return apply


def waited(scene: Scene, fix: str) -> None:
    """Wait as long as the fix says."""
    found = re.match(r"Wait ([0-9]+) s\b", fix)
    assert found is not None, fix
    time.sleep(int(found[1]))


def in_file(name: str, pattern: str, number: int = 0) -> Apply:
    """Put the literal into a file, in place of what the first group of the pattern finds."""

    def apply(scene: Scene, fix: str) -> None:
        path, literal = scene.directory / name, literals_in(fix)[number]
        text = path.read_text()
        found = re.search(pattern, text)
        assert found is not None, text
        path.write_text(text[: found.start(1)] + literal + text[found.end(1) :])

    return apply


def lines_into(name: str) -> Apply:
    """Put the fix's lines `key = value` in the places of those of the same keys in a file, as in an editor."""

    def apply(scene: Scene, fix: str) -> None:
        path, lines = scene.directory / name, [one for one in literals_in(fix) if " = " in one]
        assert lines, fix
        for line in lines:
            key = re.escape(line.partition(" = ")[0])
            literal = line.replace("\\", r"\\")  # no template
            text, count = re.subn(rf"^{key} *=.*$", literal, path.read_text(), flags=re.MULTILINE)
            assert count == 1, f"{line}: {count} lines"
            path.write_text(text)

    return apply


def by_itself(goes: Callable[[Scene], object] = lambda _scene: None) -> Apply:
    """Do nothing but try again, as the fix says; the cause goes by itself, since the other side recovers."""

    def apply(scene: Scene, fix: str) -> None:
        assert re.search("try again|retry", fix.lower()) is not None, fix
        goes(scene)

    return apply
