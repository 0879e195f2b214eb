"""Turns a function into a command: its parameters become arguments and options, its errors are printed.

A group of options is a frozen dataclass, possibly nested. A command takes it as one parameter, and typer gets its
fields after the command's own parameters.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, get_args, get_type_hints

import typer

from birthmark.cli.output.command_output import print_errors

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


def as_command(body: Callable[..., Any], name: str, example: str) -> Any:
    """Return a function or coroutine function as a command. Refusals are printed, with `--json` as JSON."""
    parameters = sorted(inspect.signature(body, eval_str=True).parameters.values(), key=_is_group)
    seen = [one for parameter in parameters for one in _flattened(parameter)]
    seen.sort(key=_place)

    def called(**given: Any) -> None:
        with print_errors(as_json=given.get("as_json", False)):
            done = body(**{parameter.name: _built(parameter, given) for parameter in parameters})
            if inspect.iscoroutine(done):
                import asyncio  # takes 0.1 s, which --help need not wait for

                asyncio.run(done)

    called.__name__, called.__doc__, called.__module__ = body.__name__, _flowing(body.__doc__), body.__module__
    called.__annotations__ = {one.name: one.annotation for one in seen}
    called.__signature__ = inspect.Signature(seen)  # type: ignore[attr-defined] # inspect checks this first
    alone = typer.Typer(add_completion=False)
    alone.command(name, epilog=f"Example: {example}")(called)
    return typer.main.get_command(alone)


def _flowing(text: str | None) -> str:
    """Join the lines of each paragraph of a help text, so that the terminal wraps it once."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(
        paragraph if re.search(r"^\s+|^[-*] ", paragraph, re.MULTILINE) else paragraph.replace("\n", " ")
        for paragraph in paragraphs
    )


def _is_group(parameter: inspect.Parameter) -> bool:
    return is_dataclass(parameter.annotation)


def _place(parameter: inspect.Parameter) -> int:
    """Return the sort key of a parameter in help: arguments first, --json last."""
    is_argument = any(isinstance(one, typer.models.ArgumentInfo) for one in get_args(parameter.annotation))
    return 0 if is_argument else 1 + (parameter.name == "as_json")


def _flattened(parameter: inspect.Parameter) -> Iterator[inspect.Parameter]:
    if not _is_group(parameter):
        yield parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        return
    for inner in _inner(parameter.annotation):
        yield from _flattened(inner)


def _built(parameter: inspect.Parameter, values: Mapping[str, Any]) -> Any:
    if not _is_group(parameter):
        return values[parameter.name]
    return parameter.annotation(**{inner.name: _built(inner, values) for inner in _inner(parameter.annotation)})


def _inner(kind: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    for one in fields(kind):
        default = inspect.Parameter.empty if one.default is MISSING else one.default
        yield inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[one.name])
