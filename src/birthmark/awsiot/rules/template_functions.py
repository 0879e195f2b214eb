"""The intrinsic functions of provisioning templates, done for one device (developer guide, "Intrinsic functions")."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from birthmark.awsiot.rules.provisioning_plans import RegistrationFailedError
from birthmark.untrusted_text import whole_number

CERTIFICATE_ID = "AWS::IoT::Certificate::Id"
FUNCTIONS = frozenset({"Ref", "Fn::Join", "Fn::Select", "Fn::FindInMap", "Fn::Split", "Fn::Sub"})
_MAX_PLAN_CHARS = 262_144
_OF_REFERENCE = 8
"""What a reference counts for, in characters, however short what it leads to is."""
_VARIABLE = re.compile(r"\$\{(!?)([^{}]*)\}")
_WIDE = re.compile(r"[*?$\"\\{}+#/\x00-\x1f\x7f]")
"""What a document of a policy reads as more than a character, or what leads into the topics of others."""


@dataclass(slots=True)
class TemplateFunctions:
    """Fills in one device's parameters; what it has written so far is bounded.

    `keys` are the properties by which each resource, by its logical name, is referred to.
    """

    parameters: Mapping[str, str | None]
    """Those that are declared, with their defaults."""
    mappings: Mapping[str, Mapping[str, Mapping[str, Any]]]
    keys: Mapping[str, tuple[str, Any]]
    given: Mapping[str, str]
    _left: int = _MAX_PLAN_CHARS
    _naming: list[str] = field(default_factory=list)
    """The resources whose names are being found out."""

    def of(self, value: Any, place: str, *, is_policy: bool = False) -> Any:
        """Return a value with its functions done. Raise `RegistrationFailedError`."""
        self._charge(1, place)
        if isinstance(value, dict):
            name = function_of(value)
            if name is None:
                return {key: self.of(inner, place, is_policy=is_policy) for key, inner in value.items()}
            return self._spend(self._done(name, value[name], place, is_policy=is_policy), place)
        if isinstance(value, list):
            return [self.of(inner, place, is_policy=is_policy) for inner in value]
        return self._spend(value, place)

    def text(self, value: Any, place: str) -> str:
        """Return a value that has to be a text."""
        return self._text(value, place)

    def _done(self, name: str, given: Any, place: str, *, is_policy: bool) -> Any:
        """Return what a function gives."""
        match name, given:
            case "Ref", str(named):
                return self._ref(named, place, is_policy=is_policy)
            case "Fn::Join", [str(between), parts]:
                joined = self._texts(parts, place, is_policy=is_policy)
                self._charge(sum(map(len, joined)) + len(between) * len(joined), place)
                return between.join(joined)
            case "Fn::Select", [index, parts]:
                return _selected(self.of(index, place), self._texts(parts, place, is_policy=is_policy), place)
            case "Fn::Split", [str(between), whole] if between:
                return self._text(whole, place, is_policy=is_policy).split(between)
            case "Fn::FindInMap", [_, _, _]:
                return self._found([self._text(key, place, is_policy=is_policy) for key in given], place)
            case "Fn::Sub", (str() | [str(), dict()]):
                pattern, values = (given, {}) if isinstance(given, str) else given
                return self._substituted(pattern, values, place, is_policy=is_policy)
            case _:
                raise failed(place, f"{name} is not written so")

    def _ref(self, name: str, place: str, *, is_policy: bool) -> str:
        self._charge(_OF_REFERENCE, place)
        if name in self.parameters or name == CERTIFICATE_ID:
            found = self.given.get(name, self.parameters.get(name))
            if found is None:
                raise failed(place, f"there is no {name}")
            if is_policy and name in self.given and (wide := _WIDE.search(found)) is not None:
                raise failed(place, f"{name} has {wide[0]!r}, which a policy reads as more than itself")
            return found
        if name in self._naming:
            raise failed(place, f"{name} names itself")
        key, value = self.keys[name]
        if value is None:
            raise failed(place, f"{name} has no {key} to be named by")
        self._naming.append(name)
        try:
            return self._text(value, place, is_policy=is_policy)
        finally:
            self._naming.pop()

    def _text(self, value: Any, place: str, *, is_policy: bool = False) -> str:
        found = self.of(value, place, is_policy=is_policy)
        if not isinstance(found, str):
            raise failed(place, "there is no text where one has to be")
        return found

    def _texts(self, value: Any, place: str, *, is_policy: bool) -> list[str]:
        found = self.of(value, place, is_policy=is_policy)
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise failed(place, "there is no list of texts where one has to be")
        return found

    def _found(self, keys: Sequence[str], place: str) -> Any:
        found: Any = self.mappings
        for key in keys:
            if not isinstance(found, Mapping) or key not in found:
                raise failed(place, f"Mappings have no {'.'.join(keys)[:100]!r}")
            found = found[key]
        return found

    def _substituted(self, pattern: str, values: Mapping[str, Any], place: str, *, is_policy: bool) -> str:
        def filled(found: re.Match[str]) -> str:
            literal, name = found[1], found[2].strip()
            if literal:
                return f"${{{found[2]}}}"
            if name in values:
                return self._text(values[name], place, is_policy=is_policy)
            if name in self.parameters or name in self.keys or name == CERTIFICATE_ID:
                filling = self._ref(name, place, is_policy=is_policy)
                self._charge(len(filling), place)
                return filling
            if ":" in name:
                return found[0]  # a policy variable
            raise failed(place, f"Fn::Sub knows no {name[:60]!r}")

        text = _VARIABLE.sub(filled, pattern)
        self._spend(text, place)
        return text

    def _spend(self, value: Any, place: str) -> Any:
        if isinstance(value, str):
            self._charge(len(value), place)
        elif isinstance(value, list):
            self._charge(len(value) + sum(map(len, value)), place)
        return value

    def _charge(self, chars: int, place: str) -> None:
        """Count characters before they are written, and what is done for them."""
        self._left -= chars
        if self._left < 0:
            raise failed(place, f"it comes to more than {_MAX_PLAN_CHARS} characters")


def function_of(value: Mapping[str, Any]) -> str | None:
    """Return the name of the function that an object is, None for any other."""
    return next((key for key in value if key == "Ref" or key.startswith("Fn::")), None)


def failed(place: str, detail: str) -> RegistrationFailedError:
    """Return the error of what cannot be done there."""
    return RegistrationFailedError(step=place, detail=detail)


def _selected(index: Any, parts: Sequence[str], place: str) -> str:
    number = whole_number(index) if isinstance(index, str) else index
    if not isinstance(number, int) or not 0 <= number < len(parts):
        told = index[:20] if isinstance(index, str) else "that"
        raise failed(place, f"Fn::Select asks for {told!r} of {len(parts)}")
    return parts[number]
