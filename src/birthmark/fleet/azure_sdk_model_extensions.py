"""Enrollment models of the vendor's service SDK, extended by members that the SDK's models lack.

The SDK reads tags called `version`, `count` or `metadata` as its own members; here an initial twin is plain JSON.
"""

import functools
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from birthmark.fleet.azure_enrollment_diff import POLICY_NAMES
from birthmark.fleet.errors import RecordUnreadableError

_TWIN, _SDK_TWIN = "twin", "initial_twin"
_MAX_TOLD = 200
_ENROLLMENTS = ("IndividualEnrollment", "EnrollmentGroup")


@functools.cache
def enrollment_models() -> SimpleNamespace:
    """Return the SDK's models by name, with extended enrollments. Raise `ImportError` without the SDK."""
    from provisioningserviceclient import models

    known: dict[str, Any] = {name: kind for name, kind in vars(models).items() if isinstance(kind, type)}
    known |= {name: _extended(known[name], known) for name in _ENROLLMENTS}
    return SimpleNamespace(**known)


def _extended(kind: Any, values: dict[str, Any]) -> Any:
    """Return a subclass that reads and writes policies, capabilities, and the twin as JSON."""
    added: dict[str, Any] = {name: {"key": key, "type": "str"} for name, key in POLICY_NAMES.items()}
    added["capabilities"] = {"key": "capabilities", "type": "DeviceCapabilities"}
    added[_TWIN] = {"key": "initialTwin", "type": "object"}
    kept = {name: how for name, how in kind._attribute_map.items() if name != _SDK_TWIN}  # noqa: SLF001 - no public API
    members = {**dict.fromkeys(added), "_attribute_map": {**kept, **added}}
    return type(kind.__name__, (kind,), {**members, "_infer_class_models": classmethod(lambda _: values)})


class UnreadableRecord:
    """A record in a query result that the models cannot hold, by its name."""

    initial_twin = None  # the SDK adds it to each record of an answer

    def __init__(self, error: RecordUnreadableError) -> None:
        self.name, self.reason = error.name, error.reason


def record_reader(models: SimpleNamespace, target: str) -> Any:
    """Return an SDK deserializer that replaces each unreadable record in a list with its name."""
    from msrest import Deserializer
    from msrest.exceptions import DeserializationError  # type: ignore[attr-defined] # as documented by the library

    untyped: Any = Deserializer

    class _Reader(untyped):  # type: ignore[misc] # untyped library
        def deserialize_iter(self, attr: Any, iter_type: str) -> Any:
            if iter_type not in _ENROLLMENTS or not isinstance(attr, list):
                return super().deserialize_iter(attr, iter_type)
            return [self._read(record, iter_type) for record in attr]

        def _read(self, record: Any, kind: str) -> Any:
            try:
                return self.deserialize_data(record, kind)
            except RecordUnreadableError as error:
                return UnreadableRecord(error)

        def _deserialize(self, target_obj: Any, data: Any) -> Any:
            try:
                return super()._deserialize(target_obj, data)
            except DeserializationError as error:
                kind = getattr(target_obj, "__name__", target_obj)
                told = data if kind in _ENROLLMENTS and isinstance(data, Mapping) else {}
                if not (name := told.get("registrationId") or told.get("enrollmentGroupId")):
                    raise
                reason = str(getattr(error, "inner_exception", None) or error)[:_MAX_TOLD]
                raise RecordUnreadableError(name=str(name), reason=reason, target=target) from error

    made: Any = _Reader
    return made(vars(models))
