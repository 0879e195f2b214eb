"""The manual pages: one of `birthmark`, and one of each word that follows it, from the command line itself.

python tools/make_man.py DIRECTORY
"""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

import birthmark
from birthmark.cli.app import app
from make_commands import HEAD, every_command, row


def escape(text: str) -> str:
    """Return plain text as roff shows it: no dash, backslash or leading dot of it is a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in escaped.splitlines())


def title(name: str, at: int) -> str:
    """Return a page's first line; `at` is its date (seconds since 1970)."""
    day = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
    return f'.TH {name.upper().replace("-", chr(92) + "-")} 1 "{day}" "birthmark {birthmark.__version__}"'


def options(command: Any) -> Iterator[str]:
    """Yield what a command takes."""
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = (parameter.metavar or parameter.name).strip("[]")
        else:
            name = ", ".join([*parameter.opts, *parameter.secondary_opts])
        meaning = row(command, parameter).split(" | ", 1)[1].removesuffix(" |").replace("\\|", "|")
        yield f".TP\n\\fB{escape(name)}\\fR\n{escape(meaning) or chr(92) + '&'}"


def told(command: Any) -> tuple[list[str], str]:
    """Return the paragraphs of a command's help, and its example."""
    text = f"{command.help or ''}\n\n{command.epilog or ''}"
    paragraphs = [" ".join(one.split()) for one in text.split("\n\n")]
    example = next(one.removeprefix("Example: ") for one in paragraphs if one.startswith("Example: "))
    return [one for one in paragraphs if one and not one.startswith("Example: ")], example


def body(path: str, command: Any, heading: str) -> Iterator[str]:
    """Yield a command's part of a page."""
    paragraphs, example = told(command)
    yield f'.{heading} "{escape(path)}"'
    yield "\n.PP\n".join(map(escape, paragraphs))
    if not hasattr(command, "list_commands"):
        yield from options(command)
        yield f".PP\n.EX\n{escape(example)}\n.EE"


def pages(at: int) -> dict[str, str]:
    """Return all pages by their file names."""
    commands = list(every_command(typer.main.get_command(app), ("birthmark",)))
    whole = commands[0][1]
    tops = [(path, command) for path, command in commands if path.count(" ") == 1]
    found = {}
    for path, command in tops:
        name = path.replace(" ", "-")
        below = [one for one in commands if one[0].startswith(f"{path} ")]
        short = told(command)[0][0].split(". ")[0].rstrip(".")
        lines = [title(name, at), ".SH NAME", f"{escape(name)} \\- {escape(short)}", ".SH SYNOPSIS"]
        lines += [f"\\fB{escape(path)}\\fR " + ("COMMAND [OPTIONS]" if below else "[OPTIONS]")]
        lines += body(path, command, "SH")
        for deeper, one in below:
            lines += body(deeper, one, "SS")
        lines += [".SH SEE ALSO", ".BR birthmark (1)"]
        found[f"{name}.1"] = "\n".join(lines) + "\n"
    lines = [title("birthmark", at), ".SH NAME", "birthmark \\- identity of devices, and a local cloud for them"]
    lines += [".SH SYNOPSIS", "\\fBbirthmark\\fR COMMAND [OPTIONS]", ".SH DESCRIPTION"]
    lines += ["\n.PP\n".join(map(escape, told(whole)[0])), ".SH COMMANDS"]
    for path, command in tops:
        lines.append(f".TP\n\\fB{escape(path)}\\fR\n{escape(told(command)[0][0])}")
    lines.append(".SH EXIT STATUS")
    for line in HEAD.splitlines():
        if line.startswith("| ") and line[2].isdigit():
            code, meaning = line.strip("| ").split(" | ")
            lines.append(f".TP\n{code}\n{escape(meaning)}")
    found["birthmark.1"] = "\n".join(lines) + "\n"
    return found


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name, text in pages(0).items():
        (out / name).write_text(text)
    print(f"{len(list(out.iterdir()))} pages in {out}")


if __name__ == "__main__":
    main()
