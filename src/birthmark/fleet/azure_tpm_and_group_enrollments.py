"""Further enrollments at Azure DPS: a device by TPM or symmetric keys, and a group by CAs or symmetric keys."""

import shlex
from collections.abc import Sequence
from typing import Any

from birthmark.dps.model import TpmKeys, parse_group_id
from birthmark.fleet.azure_dps_client import RawBulkOperation
from birthmark.fleet.azure_enrollment_diff import AzureRecord, kept, on_record, policy_names
from birthmark.fleet.azure_enrollment_group_diff import DesiredGroup
from birthmark.fleet.azure_enrollment_toggle import EnrollmentToggle
from birthmark.fleet.enrollment_target import EnrollmentOutcome, TargetOutcome
from birthmark.fleet.errors import DifferentRecordError, different
from birthmark.pki.certificates import Certificate
from birthmark.pki.names_and_registration_ids import parse_registration_id

_HOW = ", here the root of your own CA in the directory ca: `birthmark dps ca create {} ca/root.pem`"


class OtherAttestations(EnrollmentToggle):
    """Enrollments that are not based on a list of certificates."""

    def enroll_tpm(
        self,
        registration_id: str,
        keys: TpmKeys,
        *,
        is_edge: bool,
        update: bool,
        dry_run: bool,
        issue: str | None = None,
        hub: str | None = None,
    ) -> TargetOutcome:
        """Enroll a device by its TPM. Raise `DifferentRecordError` as `enroll` does."""
        models = self._models
        parse_registration_id(registration_id)
        root = None if keys.storage_root is None else keys.storage_root.base64
        present = self._found(self._sdk.get_individual_enrollment, registration_id)
        is_there = present is not None and _has_tpm(present, keys.endorsement.base64, root)
        is_there = is_there and _gives(present, hub)
        if is_there and on_record(present).is_edge == is_edge and _issues(present, issue):
            return TargetOutcome.UNCHANGED
        self._check_update(registration_id, present, f"this TPM as {_kind(is_edge)}device", update=update)
        if dry_run:
            return TargetOutcome.WOULD_CREATE if present is None else TargetOutcome.WOULD_UPDATE
        attestation = models.AttestationMechanism(
            type="tpm", tpm=models.TpmAttestation(endorsement_key=keys.endorsement.base64, storage_root_key=root)
        )
        return self._put(self._made(registration_id, present, attestation, issue, hub, is_edge=is_edge), present)

    def enroll_keys(
        self,
        registration_id: str,
        *,
        is_edge: bool,
        update: bool,
        dry_run: bool,
        issue: str | None = None,
        hub: str | None = None,
    ) -> tuple[TargetOutcome, str | None]:
        """Enroll a device with two keys that the service generates; return the first one, base64.

        Existing keys remain and are returned again. A dry run returns none.
        """
        models = self._models
        parse_registration_id(registration_id)
        present = self._found(self._sdk.get_individual_enrollment, registration_id)
        is_there = present is not None and _has_keys(present) and _issues(present, issue)
        is_there = is_there and on_record(present).is_edge == is_edge and _gives(present, hub)
        if not is_there:
            self._check_update(registration_id, present, f"keys as {_kind(is_edge)}device", update=update)
        if dry_run:
            planned = TargetOutcome.WOULD_CREATE if present is None else TargetOutcome.WOULD_UPDATE
            return TargetOutcome.UNCHANGED if is_there else planned, None
        done = TargetOutcome.UNCHANGED
        if not is_there:
            there = self._keys(registration_id) if _has_key_kind(present) else models.SymmetricKeyAttestation()
            attestation = models.AttestationMechanism(type="symmetricKey", symmetric_key=there)
            done = self._put(self._made(registration_id, present, attestation, issue, hub, is_edge=is_edge), present)
        return done, str(self._keys(registration_id).primary_key)

    def _check_update(self, name: str, present: Any, wanted: str, *, update: bool) -> None:
        if present is not None and not update:
            told = {"present": _told(on_record(present)), "wanted": f"{wanted} {name}"}
            raise DifferentRecordError(device=name, target=self.description, **told)

    def _made(
        self,
        registration_id: str,
        present: Any,
        attestation: Any,
        issue: str | None,
        hub: str | None,
        *,
        is_edge: bool,
    ) -> Any:
        """Return the record with another attestation; its other settings remain."""
        capabilities = self._models.DeviceCapabilities.create(iot_edge=is_edge)
        if present is None:
            made = self._models.IndividualEnrollment.create(
                registration_id=registration_id, attestation=attestation, device_capabilities=capabilities
            )
        else:
            made = self._as_kept(kept(present))
        for name, text in policy_names(issue).items():
            setattr(made, name, text)
        if hub is not None:
            made.iot_hub_host_name, made.iot_hubs, made.allocation_policy = None, [hub], "static"
        made.attestation, made.capabilities, made.provisioning_status = attestation, capabilities, "enabled"
        return made

    def _keys(self, registration_id: str) -> Any:
        with self._translated(registration_id):
            return self._sdk.get_individual_enrollment_attestation_mechanism(registration_id).symmetric_key

    def enroll_key_group(
        self,
        group_id: str,
        *,
        is_edge: bool,
        update: bool,
        dry_run: bool,
        hub: str | None = None,
        issue: str | None = None,
    ) -> tuple[EnrollmentOutcome, str | None, str | None]:
        """Create a group with device keys derived from two keys that the service generates; return those.

        Existing keys remain and are returned again. A dry run returns none. Raise `DifferentRecordError` as
        `enroll_group` does.
        """
        wish = DesiredGroup(is_edge=is_edge, hub=hub, issue=issue)
        enrolled = self._enroll_group(group_id, wish, update=update, dry_run=dry_run)
        if dry_run:
            return enrolled, None, None
        keys = self._group_keys(group_id)
        return enrolled, str(keys.primary_key), str(keys.secondary_key)

    def _group_keys(self, group_id: str) -> Any:
        with self._translated(group_id):
            return self._sdk.get_enrollment_group_attestation_mechanism(group_id).symmetric_key

    def enroll_group(
        self,
        group_id: str,
        *,
        ca_names: Sequence[str] = (),
        certificates: Sequence[Certificate] = (),
        is_edge: bool,
        update: bool,
        dry_run: bool,
        hub: str | None = None,
        issue: str | None = None,
    ) -> EnrollmentOutcome:
        """Create an enrollment group of registered CAs or given certificates: one, or two for a root rollover.

        With `hub`, its devices are assigned to that hub; `issue` is the policy that issues their certificates. Raise
        `DifferentRecordError` for an existing group that differs, unless `update` is set.
        """
        wish = DesiredGroup(ca_names, certificates, is_edge=is_edge, hub=hub, issue=issue)
        return self._enroll_group(group_id, wish, update=update, dry_run=dry_run)

    def _enroll_group(self, group_id: str, wish: DesiredGroup, *, update: bool, dry_run: bool) -> EnrollmentOutcome:
        parse_group_id(group_id)
        how = _HOW.format(shlex.quote(wish.ca_names[0])) if wish.ca_names else ""
        told = self._found(lambda name: self._json("get_enrollment_group", name), group_id)
        if told is None:
            if not dry_run:
                self._put(self._made_group(group_id, wish), None, how)
            return EnrollmentOutcome(TargetOutcome.WOULD_CREATE if dry_run else TargetOutcome.CREATED)
        if not (difference := wish.difference(told)):
            return EnrollmentOutcome(TargetOutcome.UNCHANGED)
        if not update:
            raise different(f"The group {group_id}", self.description, difference)
        if dry_run:
            return EnrollmentOutcome(TargetOutcome.WOULD_UPDATE, difference)
        made, present = wish.over(told), told.get("attestation") or {}
        if wish.has_keys and present.get("type") == "symmetricKey":  # only this call returns the keys
            made["attestation"] = self._json("get_enrollment_group_attestation_mechanism", group_id)
        write = self._operation("create_or_update_enrollment_group")
        with self._below_the_sdk("" if how else group_id, how):
            write(group_id, RawBulkOperation(made), told.get("etag"))
        return EnrollmentOutcome(TargetOutcome.UPDATED, difference)

    def _made_group(self, group_id: str, wish: DesiredGroup) -> Any:
        """Return an enrollment group as an SDK model."""
        models = self._models
        if wish.has_keys:
            keys = models.SymmetricKeyAttestation()
            attestation = models.AttestationMechanism(type="symmetricKey", symmetric_key=keys)
        elif wish.ca_names:
            attestation = models.AttestationMechanism.create_with_x509_ca_refs(*wish.ca_names)
        else:
            pems = [certificate.pem() for certificate in wish.certificates]
            attestation = models.AttestationMechanism.create_with_x509_signing_certs(*pems)
        made = models.EnrollmentGroup.create(group_id, attestation=attestation)
        for name, text in policy_names(wish.issue).items():
            setattr(made, name, text)
        if wish.hub is not None:
            made.iot_hubs, made.allocation_policy = [wish.hub], "static"
        if wish.is_edge:
            made.capabilities = models.DeviceCapabilities.create(iot_edge=True)
        return made


def _has_tpm(enrollment: Any, endorsement_key: str, storage_root_key: str | None) -> bool:
    """Return whether this TPM may register by the enrollment in its current form."""
    tpm = enrollment.attestation.tpm if enrollment.attestation else None
    if tpm is None or enrollment.provisioning_status == "disabled":
        return False
    return tpm.endorsement_key == endorsement_key and storage_root_key in {None, tpm.storage_root_key}


def _has_key_kind(enrollment: Any) -> bool:
    return bool(enrollment and enrollment.attestation and enrollment.attestation.type == "symmetricKey")


def _has_keys(enrollment: Any) -> bool:
    """Return whether the device may register by symmetric keys."""
    return _has_key_kind(enrollment) and enrollment.provisioning_status != "disabled"


def _gives(enrollment: Any, hub: str | None) -> bool:
    """Return whether the enrollment assigns this hub only, or no hub is requested."""
    return hub is None or [one.lower() for one in on_record(enrollment).hubs] == [hub.lower()]


def _issues(enrollment: Any, issue: str | None) -> bool:
    """Return whether this policy issues the certificates, or no policy is requested."""
    named = policy_names(issue).get("certificate_policy_name")
    return named in {None, on_record(enrollment).issue}


def _kind(is_edge: bool) -> str:
    return "IoT Edge " if is_edge else ""


def _told(present: AzureRecord) -> str:
    said = ", ".join(present.thumbprints) or "another attestation"
    return f"{said} as {_kind(present.is_edge)}device {present.device_id}"
