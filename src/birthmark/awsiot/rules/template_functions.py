"""Intrinsic functions of provisioning templates, evaluated for one device (developer guide, "Intrinsic functions")."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from birthmark.awsiot.rules.provisioning_plan_model import RegistrationFailedError
from birthmark.untrusted_json_and_text import whole_number

CERTIFICATE_ID = "AWS::IoT::Certificate::Id"
FUNCTIONS = frozenset({"Ref", "Fn::Join", "Fn::Select", "Fn::FindInMap", "Fn::Split", "Fn::Sub"})
_MAX_PLAN_CHARS = 262_144
_OF_REFERENCE = 8
"""Minimum cost of a reference, in characters."""
_VARIABLE = re.compile(r"\$\{(!?)([^{}]*)\}")
_WIDE = re.compile(r"[*?$\"\\{}+#/\x00-\x1f\x7f]")
"""Characters with a special meaning in a policy document, or that lead to topics of other devices."""


@dataclass(slots=True)
class TemplateFunctions:
    """Evaluates templates for one device; the output size is limited.

    `keys` are the properties through which each resource, by its logical name, is referenced.
    """

    parameters: Mapping[str, str | None]
    """Declared parameters with their defaults."""
    mappings: Mapping[str, Mapping[str, Mapping[str, Any]]]
    keys: Mapping[str, tuple[str, Any]]
    given: Mapping[str, str]
    _left: int = _MAX_PLAN_CHARS
    _naming: list[str] = field(default_factory=list)
    """Resources whose names are being resolved."""

    def of(self, value: Any, path: str, *, is_policy: bool = False) -> Any:
        """Return a value with its template functions evaluated. Raise `RegistrationFailedError`."""
        self._charge(1, path)
        if isinstance(value, dict):
            name = function_of(value)
            if name is None:
                return {key: self.of(inner, path, is_policy=is_policy) for key, inner in value.items()}
            return self._spend(self._call_function(name, value[name], path, is_policy=is_policy), path)
        if isinstance(value, list):
            return [self.of(inner, path, is_policy=is_policy) for inner in value]
        return self._spend(value, path)

    def text(self, value: Any, path: str) -> str:
        """Return a value that must be text."""
        return self._text(value, path)

    def _call_function(self, name: str, value: Any, path: str, *, is_policy: bool) -> Any:
        """Return the result of a function."""
        match name, value:
            case "Ref", str(named):
                return self._ref(named, path, is_policy=is_policy)
            case "Fn::Join", [str(between), parts]:
                joined = self._texts(parts, path, is_policy=is_policy)
                self._charge(sum(map(len, joined)) + len(between) * len(joined), path)
                return between.join(joined)
            case "Fn::Select", [index, parts]:
                return _selected(self.of(index, path), self._texts(parts, path, is_policy=is_policy), path)
            case "Fn::Split", [str(between), whole] if between:
                return self._text(whole, path, is_policy=is_policy).split(between)
            case "Fn::FindInMap", [_, _, _]:
                return self._found([self._text(key, path, is_policy=is_policy) for key in value], path)
            case "Fn::Sub", (str() | [str(), dict()]):
                pattern, values = (value, {}) if isinstance(value, str) else value
                return self._substituted(pattern, values, path, is_policy=is_policy)
            case _:
                raise registration_error(path, f"{name} is not written so")

    def _ref(self, name: str, path: str, *, is_policy: bool) -> str:
        self._charge(_OF_REFERENCE, path)
        if name in self.parameters or name == CERTIFICATE_ID:
            found = self.given.get(name, self.parameters.get(name))
            if found is None:
                raise registration_error(path, f"{name} has no value")
            if is_policy and name in self.given and (wide := _WIDE.search(found)) is not None:
                raise registration_error(path, f"{name} has {wide[0]!r}, which a policy reads as more than itself")
            return found
        if name in self._naming:
            raise registration_error(path, f"{name} names itself")
        key, value = self.keys[name]
        if value is None:
            raise registration_error(path, f"{name} has no {key} to be named by")
        self._naming.append(name)
        try:
            return self._text(value, path, is_policy=is_policy)
        finally:
            self._naming.pop()

    def _text(self, value: Any, path: str, *, is_policy: bool = False) -> str:
        found = self.of(value, path, is_policy=is_policy)
        if not isinstance(found, str):
            raise registration_error(path, "a string is required here")
        return found

    def _texts(self, value: Any, path: str, *, is_policy: bool) -> list[str]:
        found = self.of(value, path, is_policy=is_policy)
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise registration_error(path, "a list of strings is required here")
        return found

    def _found(self, keys: Sequence[str], path: str) -> Any:
        found: Any = self.mappings
        for key in keys:
            if not isinstance(found, Mapping) or key not in found:
                raise registration_error(path, f"Mappings have no {'.'.join(keys)[:100]!r}")
            found = found[key]
        return found

    def _substituted(self, pattern: str, values: Mapping[str, Any], path: str, *, is_policy: bool) -> str:
        def filled(match: re.Match[str]) -> str:
            literal, name = match[1], match[2].strip()
            if literal:
                return f"${{{match[2]}}}"
            if name in values:
                return self._text(values[name], path, is_policy=is_policy)
            if name in self.parameters or name in self.keys or name == CERTIFICATE_ID:
                filling = self._ref(name, path, is_policy=is_policy)
                self._charge(len(filling), path)
                return filling
            if ":" in name:
                return match[0]  # policy variable
            raise registration_error(path, f"Fn::Sub knows no {name[:60]!r}")

        text = _VARIABLE.sub(filled, pattern)
        self._spend(text, path)
        return text

    def _spend(self, value: Any, path: str) -> Any:
        if isinstance(value, str):
            self._charge(len(value), path)
        elif isinstance(value, list):
            self._charge(len(value) + sum(map(len, value)), path)
        return value

    def _charge(self, chars: int, path: str) -> None:
        """Count characters before they are written, including intermediate results."""
        self._left -= chars
        if self._left < 0:
            raise registration_error(path, f"the result has more than {_MAX_PLAN_CHARS} characters")


def function_of(value: Mapping[str, Any]) -> str | None:
    """Return the function name of an object; None if it is no function."""
    return next((key for key in value if key == "Ref" or key.startswith("Fn::")), None)


def registration_error(path: str, detail: str) -> RegistrationFailedError:
    """Return the error for a failed evaluation at this position."""
    return RegistrationFailedError(step=path, detail=detail)


def _selected(index: Any, parts: Sequence[str], path: str) -> str:
    number = whole_number(index) if isinstance(index, str) else index
    if not isinstance(number, int) or not 0 <= number < len(parts):
        told = index[:20] if isinstance(index, str) else "that"
        raise registration_error(path, f"Fn::Select: {told!r} is not an index; the number of values is {len(parts)}")
    return parts[number]
