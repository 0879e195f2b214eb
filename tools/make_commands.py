"""Write docs/reference/commands.md from the command line itself.

python tools/make_commands.py
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import birthmark
from birthmark.cli.app import app

TARGET = Path(birthmark.__file__).parents[2] / "docs" / "reference" / "commands.md"
HEAD = """# Commands

Commands print results to standard output, as text or with `--json` as one object per line. All other output goes to
standard error.

| exit code | meaning |
|---|---|
| 0 | success |
| 1 | failure |
| 2 | usage error, or an error in a configuration file |
| 3 | not found |
| 4 | not authorized |
| 5 | not reachable |
| 6 | action needed: confirm or change something first |
| 7 | some rows rejected |
| 130 | interrupted |

An option overrides its environment variable, which overrides a file, which overrides the default. Commands read a PIN
or password from a file of mode 0600, a file descriptor or a prompt, never from the command line.
`tools/make_commands.py` generates this page.
"""


def every_command(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Yield each command and group with its words, in the order of the help."""
    yield " ".join(path), command
    if hasattr(command, "list_commands"):
        context = typer.Context(command, info_name=path[-1])
        for name in command.list_commands(context):
            yield from every_command(command.get_command(context, name), (*path, name))


def cell(text: str) -> str:
    """Return text for a table's cell."""
    return " ".join(text.replace("|", "\\|").split())


def row(command: Any, parameter: Any) -> str:
    """Return one option's or argument's row."""
    values = parameter.type.get_metavar(parameter, typer.Context(command)) or ""
    if parameter.param_type_name == "argument":
        name = (parameter.metavar or parameter.name).strip("[]")
        shown = cell(f"`{name}`" if parameter.required else f"`[{name}]`")
    else:
        shown = ", ".join(f"`{option}`" for option in [*parameter.opts, *parameter.secondary_opts])
    notes = [cell(parameter.help or "")]
    if "|" in values:
        notes.append("One of " + ", ".join(f"`{one}`" for one in values.strip("<>[]").split("|")) + ".")
    default = getattr(parameter.default, "value", parameter.default)
    if default not in (None, False, "", ()) and not callable(default):
        notes.append(f"Default: `{default}`.")
    if parameter.required and parameter.param_type_name == "option":
        notes.append("Required.")
    if parameter.envvar:
        notes.append(f"Variable: `{parameter.envvar}`.")
    return f"| {shown} | {' '.join(notes)} |"


def section(path: str, command: Any) -> str:
    """Return one command's part of the page."""
    text = f"{command.help or ''}\n{command.epilog or ''}"
    paragraphs = [line.strip() for line in text.splitlines()]
    example = next(line.removeprefix("Example: ") for line in paragraphs if line.startswith("Example: "))
    told = "\n".join(line for line in paragraphs if not line.startswith("Example: ")).strip()
    is_group = hasattr(command, "list_commands")
    parts = [f"{'##' if path.count(' ') == 1 else '###'} `{path}`", told]
    if not is_group:
        parts.append(f"    {example}")
        if rows := [row(command, parameter) for parameter in command.params]:
            parts.append("\n".join(["| option | meaning |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def page() -> str:
    """Return the whole page."""
    commands = list(every_command(typer.main.get_command(app), ("birthmark",)))[1:]
    return "\n\n".join([HEAD.rstrip(), *(section(path, command) for path, command in commands)]) + "\n"


if __name__ == "__main__":
    TARGET.write_text(page())
    print(f"{TARGET.name} written")
