"""Disabling and enabling of an enrollment at Azure DPS, without any other change.

It is read and written as the service's JSON, because the SDK's models lack members.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from birthmark.dps.model import TAKEN_BACK
from birthmark.fleet.azure_dps_client import AzureService, RawBulkOperation
from birthmark.fleet.enrollment_target import TargetOutcome

_NOTES = "optionalDeviceInformation"  # unknown to the SDK's models


@dataclass(frozen=True, slots=True)
class EnablementResult:
    """Result of the change, and the registered device and hub, if any."""

    done: TargetOutcome
    device_id: str | None = None
    hub: str | None = None


class EnrollmentToggle(AzureService):
    """Disables and enables enrollments."""

    def switch(self, name: str, *, is_group: bool, is_enabled: bool, dry_run: bool) -> EnablementResult:
        """Enable or disable an enrollment. Raise `NoSuchRecordError`."""
        kind = "enrollment_group" if is_group else "individual_enrollment"
        told = self._json(f"get_{kind}", name)
        registered = _registered(told.pop("registrationState", None))
        wanted = "enabled" if is_enabled else "disabled"
        if told.get("provisioningStatus", "enabled") == wanted:
            return EnablementResult(TargetOutcome.UNCHANGED, *registered)
        if dry_run:
            return EnablementResult(TargetOutcome.WOULD_UPDATE, *registered)
        told["provisioningStatus"] = wanted
        (told.get(_NOTES) or {}).pop(TAKEN_BACK, None)  # the new change has another reason
        self._write(kind, name, told)
        return EnablementResult(TargetOutcome.UPDATED, *registered)

    def why_taken_back(self, name: str) -> str | None:
        """Return why a device with a disabled enrollment was revoked; None if it was not."""
        told = self._json("get_individual_enrollment", name)
        is_disabled = told.get("provisioningStatus") == "disabled"
        why = (told.get(_NOTES) or {}).get(TAKEN_BACK) if is_disabled else None
        return None if why is None else str(why)

    def mark(self, name: str, why: str) -> None:
        """Record in a device's enrollment why it was revoked."""
        told = self._json("get_individual_enrollment", name)
        told.pop("registrationState", None)
        told[_NOTES] = (told.get(_NOTES) or {}) | {TAKEN_BACK: why}
        self._write("individual_enrollment", name, told)

    def _write(self, kind: str, name: str, values: dict[str, Any]) -> None:
        """Write an enrollment in the service's JSON form."""
        if (values.get("attestation") or {}).get("type") == "symmetricKey":  # only this call returns the keys
            values["attestation"] = self._json(f"get_{kind}_attestation_mechanism", name)
        write = self._operation(f"create_or_update_{kind}")
        with self._below_the_sdk(name):
            write(name, RawBulkOperation(values), values.get("etag"))

    def registered(self, name: str) -> tuple[str | None, str | None]:
        """Return the device ID and hub to which an individual enrollment is registered. Raise `NoSuchRecordError`."""
        return _registered(self._json("get_individual_enrollment", name).get("registrationState"))

    def _json(self, operation: str, name: str) -> dict[str, Any]:
        read = self._operation(operation)
        with self._below_the_sdk(name):
            return dict(read(name, raw=True).response.json())


def _registered(state: Mapping[str, Any] | None) -> tuple[str | None, str | None]:
    told = state or {}
    return (told.get("deviceId"), told["assignedHub"]) if told.get("assignedHub") else (None, None)
