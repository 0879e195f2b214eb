"""Groups of options: a command takes a frozen dataclass of them as one parameter."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

R = TypeVar("R")


def grouped(command: Callable[..., R]) -> Callable[..., R]:
    """Let a parameter whose type is a dataclass stand for its fields, also nested ones; typer sees the fields."""
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    seen = [one for parameter in parameters for one in _flattened(parameter)]

    def called(**given: Any) -> R:
        return command(**{parameter.name: _built(parameter, given) for parameter in parameters})

    called.__name__, called.__doc__, called.__module__ = command.__name__, command.__doc__, command.__module__
    called.__annotations__ = {one.name: one.annotation for one in seen}
    called.__signature__ = inspect.Signature(seen)  # type: ignore[attr-defined] # what inspect looks for first
    return called


def _flattened(parameter: inspect.Parameter) -> Iterator[inspect.Parameter]:
    kind = parameter.annotation
    if not is_dataclass(kind):
        yield parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        return
    hints = get_type_hints(kind, include_extras=True)
    for one in fields(kind):
        default = inspect.Parameter.empty if one.default is MISSING else one.default
        inner = inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[one.name])
        yield from _flattened(inner)


def _built(parameter: inspect.Parameter, given: Mapping[str, Any]) -> Any:
    kind = parameter.annotation
    if not is_dataclass(kind):
        return given[parameter.name]
    return kind(**{one.name: _built(one, given) for one in _direct(kind)})  # type: ignore[operator] # it is a class


def _direct(kind: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    for one in fields(kind):
        yield inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, annotation=hints[one.name])
