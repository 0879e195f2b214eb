"""Revocation of a lost device at Azure: its enrollment and its hub device are disabled, with random symmetric keys.

They are disabled, not removed. An individual enrollment takes precedence over every group that would accept the device,
and an existing hub device is not recreated. If the service rejects another attestation for a record, its own remains. A
record that the service rejects in every form, because it does not return the certificate, is replaced.
"""

import base64
import contextlib
import shlex
import time
from http import HTTPStatus
from typing import Any

from birthmark.clock_and_entropy import SystemEntropy
from birthmark.devices.model import RevocationOutcome, RevokedPart
from birthmark.errors import BirthmarkError
from birthmark.fleet.azure_dps_client import status_of
from birthmark.fleet.azure_enrollment_diff import kept
from birthmark.fleet.azure_hub_devices import TAKEN_BACK, is_revoked_at_hub
from birthmark.fleet.azure_tpm_and_group_enrollments import OtherAttestations
from birthmark.fleet.errors import NoSuchRecordError, TargetRefusedError, TargetUnreachableError

_KEY_BYTES = 64
_PAUSES_S = (0.0, 1.0, 2.0, 4.0)
_NO_HUB = "no hub was checked for it. Set IOTHUB_CONNECTION_STRING, or hub_connection_string_file in the profile."


def fresh_key(size: int = _KEY_BYTES) -> str:
    """Return a random key in base64 that is disclosed to no client."""
    return base64.b64encode(SystemEntropy().token(size)).decode()


class _OpenError(Exception):
    """A record was removed, and could not be replaced."""

    def __init__(self, why: BirthmarkError) -> None:
        self.why = why


class AzureRevoker(OtherAttestations):
    """Revokes devices at Azure."""

    def revoke_device(
        self, name: str, reason: str, *, dry_run: bool, block: bool = False, scope: str = "azure"
    ) -> list[RevokedPart]:
        """Revoke a device, and return the outcome of each part; empty if no record exists, after a search of all.

        With `block`, a name without a record is blocked, too. `place` is the profile in the operator's commands.
        """
        present = self._found(self._sdk.get_individual_enrollment, name)
        state = self._found(self._sdk.get_registration_state, name) if present is None else present.registration_state
        if present is None and state is None and not block:
            return self._at_the_hub(name, None, reason, dry_run=dry_run)
        dps = f"DPS {self._host}"
        try:
            rows = [self._row(dps, "enrollment", name, self._shut(name, present, reason, dry_run=dry_run))]
        except _OpenError as error:
            typed = shlex.join(["birthmark", "device", "revoke", name, "--to", scope, "--block", "--yes"])
            note = f"the name is open to every group now: {error.why.explain_cause()}"
            rows = [RevokedPart(dps, "enrollment", name, RevocationOutcome.FAILED, note, f"`{typed}`")]
        device_id = str((state and state.device_id) or (present and present.device_id) or name)
        hub = None if state is None or not state.assigned_hub else str(state.assigned_hub)
        return [*rows, *self._at_the_hub(device_id, hub, reason, dry_run=dry_run)]

    def _shut(self, name: str, present: Any, reason: str, *, dry_run: bool) -> RevocationOutcome:
        is_disabled = present is not None and present.provisioning_status == "disabled"
        if is_disabled and not _has_keys(present) and self.why_taken_back(name) is not None:
            return RevocationOutcome.WAS_REVOKED
        if dry_run:
            return RevocationOutcome.WOULD_REVOKE
        made = self._in_the_way(name) if present is None else self._shut_out(name, present)
        try:
            self._put(made, present)
        except TargetRefusedError as refused:
            if present is None:
                raise
            self._shut_as_it_is(name, present, refused)
        with contextlib.suppress(TargetRefusedError):  # without support for the note, it is still disabled
            self.mark(name, reason)
        return RevocationOutcome.REVOKED

    def _shut_as_it_is(self, name: str, present: Any, refused: TargetRefusedError) -> None:
        """Disable a record with its own attestation; replace it only if the service rejects both forms."""
        try:
            self.switch(name, is_group=False, is_enabled=False, dry_run=False)
        except TargetRefusedError as error:
            if {status_of(refused.__cause__), status_of(error.__cause__)} != {HTTPStatus.BAD_REQUEST}:
                raise
            self._exchange(name, present)

    def _exchange(self, name: str, present: Any) -> None:
        """Remove a record, and replace it with a blocking one. Raise `_OpenError` if none can be created."""
        with contextlib.suppress(NoSuchRecordError, TargetUnreachableError), self._translated(name):
            self._sdk.delete(present)  # the answer may be lost after success
        for pause_s in _PAUSES_S:
            time.sleep(pause_s)
            try:
                now = self._found(self._sdk.get_individual_enrollment, name)
                if now is None or now.provisioning_status != "disabled":  # exists after a lost answer
                    self._put(self._in_the_way(name), None)
            except BirthmarkError as error:
                why = error
            else:
                return
        raise _OpenError(why)

    def _shut_out(self, name: str, present: Any) -> Any:
        """Return the record disabled; if the service does not return its certificate, with random keys instead."""
        before = kept(present)
        made = self._as_kept(before)
        pair = ((before.get("attestation") or {}).get("x509") or {}).get("clientCertificates") or {}
        is_told = all(one.get("certificate") for one in pair.values() if one)
        if _has_keys(present) or (present.attestation.x509 and not is_told):
            made.attestation = self._in_the_way(name).attestation
        made.provisioning_status = "disabled"
        return made

    def _in_the_way(self, name: str) -> Any:
        models = self._models
        keys = models.SymmetricKeyAttestation(primary_key=fresh_key(), secondary_key=fresh_key())
        attestation = models.AttestationMechanism(type="symmetricKey", symmetric_key=keys)
        made = models.IndividualEnrollment.create(registration_id=name, attestation=attestation)
        made.provisioning_status = "disabled"
        return made

    def _at_the_hub(self, device_id: str, assigned: str | None, reason: str, *, dry_run: bool) -> list[RevokedPart]:
        place = f"IoT Hub {assigned or (self._hub and self._hub.host)}"
        if self._hub is None or (assigned is not None and self._hub.host != assigned.partition(":")[0]):
            if assigned is None:
                return (
                    [] if self._hub else [RevokedPart("IoT Hub", "device", device_id, RevocationOutcome.LEFT, _NO_HUB)]
                )
            named = shlex.join(["--hub-name", assigned.partition(".")[0], "--device-id", device_id])
            typed = f"az iot hub device-identity update {named} --set status=disabled"
            note = "no connection string of that hub is at hand"
            return [RevokedPart(place, "device", device_id, RevocationOutcome.FAILED, note, f"`{typed}`")]
        try:
            device = self._hub.get(device_id)
            if device is None:
                return []
            done = (
                RevocationOutcome.WAS_REVOKED
                if is_revoked_at_hub(device)
                else RevocationOutcome.WOULD_REVOKE
                if dry_run
                else RevocationOutcome.REVOKED
            )
            if done is RevocationOutcome.REVOKED:
                self._hub.disable_and_rotate_keys(device, TAKEN_BACK + reason, (fresh_key(32), fresh_key(32)))
        except BirthmarkError as error:
            return [
                RevokedPart(
                    place, "device", device_id, RevocationOutcome.FAILED, error.explain_cause(), error.explain_fix()
                )
            ]
        return [self._row(place, "device", device_id, done)]

    @staticmethod
    def _row(scope: str, kind: str, name: str, became: RevocationOutcome) -> RevokedPart:
        return RevokedPart(scope, kind, name, became)


def _has_keys(enrollment: Any) -> bool:
    return bool(enrollment.attestation and enrollment.attestation.type == "symmetricKey")
