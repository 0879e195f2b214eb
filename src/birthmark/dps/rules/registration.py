"""Registration rules: allocation to the linked hubs, and the effect of a repeated registration."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from birthmark.dps.model import INITIAL, Enrollment, Registration
from birthmark.errors import ConflictError, ForbiddenError, InvalidRequestError, PolicyError
from birthmark.pki.certificates import Thumbprint
from birthmark.pki.csr import CertificateRequest
from birthmark.pki.names_and_registration_ids import MAKE_REQUEST, RegistrationId, fold

REPEATED_WITHIN = timedelta(hours=1)
"""Time in which a repeated registration with the same key is the same operation: its response may be lost."""


class NoIssuingPolicyError(PolicyError):
    """The enrollment issues no certificates."""

    code = "dps.no_issuing_policy"
    cause = (
        "{registration_id} registered with a certificate signing request, but its enrollment {enrollment} has no "
        "issuing policy."
    )
    fix = (
        'Set the issuing policy: `birthmark device enroll --cert "$X509_CERT_FILE" --issue device '
        "--update{options}`. For a group, see `birthmark device enroll-group --help`. Alternatively, register "
        "without the csr property."
    )
    enrollment: str
    options: str = ""
    registration_id: str


class CsrNameError(InvalidRequestError):
    """The signing request is for another name."""

    code = "dps.csr_name"
    message = "The signing request is for '{asked}', not for {registration_id}"
    cause = "{registration_id} registered with a certificate signing request whose common name is '{asked}'."
    fix = f"Set the common name to the registration ID, {{registration_id}}. {MAKE_REQUEST}"
    asked: str
    registration_id: str


def check_csr(enrollment: Enrollment, registration_id: str, csr: CertificateRequest) -> str:
    """Return the policy that issues the requested certificate. Raise `NoIssuingPolicyError` or `CsrNameError`."""
    if enrollment.policy is None:
        raise NoIssuingPolicyError(enrollment=enrollment.id, registration_id=registration_id)
    if csr.subject_cn is None or fold(csr.subject_cn) != fold(registration_id):
        raise CsrNameError(registration_id=registration_id, asked=csr.subject_cn or csr.subject_text)
    return enrollment.policy


def is_repeated(
    present: Registration | None, enrollment: Enrollment, key_digest: bytes, not_after: datetime, now: datetime
) -> bool:
    """Return whether an earlier run of the same operation issued a certificate, which expires at `not_after`.

    The key identifies it: a restarted device signs a new CSR with the same key, and gets the same certificate.
    """
    if present is None or present.issued_at is None or present.issued_key != key_digest:
        return False
    is_alive = not_after - present.issued_at
    within = min(REPEATED_WITHIN, is_alive / 10)
    return present.issued_by == enrollment.policy and now - present.issued_at <= within


MIGRATED, RESET = "deviceDataMigrated", "deviceDataReset"


class NoHubError(ConflictError):
    """No linked hub is available to this enrollment."""

    code = "dps.no_hub"
    cause = "The provisioning service is linked to none of the hubs that the enrollment {enrollment} may use{named}."
    fix = "Link a hub: `birthmark dps link birthmark --dps {instance}`. List linked hubs: `birthmark dps ls`."
    enrollment: str
    instance: str = "?"
    named: str = ""


class AllocationNotServedError(InvalidRequestError):
    """The allocation policy is not supported."""

    code = "dps.allocation_not_served"
    cause = "The enrollment {enrollment} has the allocation policy {policy}, which is not supported."
    fix = (
        "Use hashed, static, or custom. To enroll a device with the hashed policy: `birthmark device enroll --cert "
        '"$X509_CERT_FILE"`'
    )
    enrollment: str
    policy: object


class RegistrationPinnedError(ForbiddenError):
    """The registration belongs to another identity."""

    code = "dps.registration_pinned"
    cause = "{registration_id} was registered by {holder}; {asked} cannot take over the registration."
    fix = "If the change is intended, release the registration first: `birthmark dps release {registration_id}`."
    asked: str
    holder: str
    registration_id: str


def no_hub(enrollment: Enrollment) -> NoHubError:
    """Return the error for an enrollment that allows none of the linked hubs."""
    named = f", which are {', '.join(enrollment.hubs)[:200]}" if enrollment.hubs else ""
    return NoHubError(enrollment=enrollment.id, named=named)


def check_pinned(
    enrollment: Enrollment, present: Registration | None, spelling: str, thumbprint: Thumbprint | None
) -> None:
    """Raise `RegistrationPinnedError` for a registration of another enrollment or spelling of the name.

    An individual enrollment takes a registration over, because an operator created it for this ID. The device itself
    also does, by the same certificate, if its group was removed and recreated.
    """
    if present is None or not enrollment.is_group:
        return
    group_id = enrollment.id
    if present.group_id != group_id:
        holder = "an individual enrollment" if present.group_id is None else f"the group {present.group_id}"
        raise _pinned(present, holder, f"the group {group_id}")
    is_same_device = thumbprint is not None and thumbprint == present.thumbprint
    if present.group_made not in {None, enrollment.made_at} and not is_same_device:
        raise _pinned(
            present, f"the group {group_id} before it was removed", f"the group {group_id} that was created again"
        )
    if present.common_name not in {None, spelling}:
        raise _pinned(present, f"the device '{present.common_name}'", f"the device '{spelling}'")


def _pinned(present: Registration, holder: str, asked: str) -> RegistrationPinnedError:
    return RegistrationPinnedError(registration_id=present.registration_id, holder=holder, asked=asked)


def allocate(
    enrollment: Enrollment, registration_id: RegistrationId, linked: Sequence[str], present: str | None = None
) -> str:
    """Return the hub's host for a registration: `present` while it is allowed. Raise `NoHubError`.

    A hub that is linked later therefore takes no devices from another.
    """
    candidates = enrollment.hubs or sorted(linked)
    known = {host.lower(): host for host in linked}
    usable = [known[host.lower()] for host in candidates if host.lower() in known]
    if not usable:
        raise no_hub(enrollment)
    if present is not None and present.lower() in {host.lower() for host in usable}:
        return present
    digest = hashlib.sha256(registration_id.encode()).digest()
    return usable[int.from_bytes(digest[:8], "big") % len(usable)]


def _device_id(enrollment: Enrollment, registration_id: str) -> str:
    return (None if enrollment.is_group else enrollment.device_id) or registration_id


def is_same(enrollment: Enrollment, registration_id: str, present: Registration) -> bool:
    """Return whether a registration belongs to this enrollment and to the same device."""
    return present.group_id == enrollment.group_id and present.device_id == _device_id(enrollment, registration_id)


def decide(
    enrollment: Enrollment,
    registration_id: RegistrationId,
    present: Registration | None,
    linked: Sequence[str],
    *,
    spelling: str,
    thumbprint: Thumbprint | None,
    operation_id: str,
    etag: str,
    now: datetime,
) -> Registration:
    """Return the registration at `now`: the present one if it still applies, otherwise a new assignment.

    `spelling` is the device's spelling of the name. Raise `RegistrationPinnedError` or `NoHubError`.
    """
    check_pinned(enrollment, present, spelling, thumbprint)
    device_id = _device_id(enrollment, registration_id)
    group_id = enrollment.group_id
    group_made = enrollment.made_at if enrollment.is_group else None
    if present is not None and is_same(enrollment, registration_id, present):
        hub = present.hub if enrollment.keeps_hub else allocate(enrollment, registration_id, linked, present.hub)
        moved = hub.lower() != present.hub.lower()
        return replace(
            present,
            hub=hub,
            substatus=(MIGRATED if enrollment.migrates else RESET) if moved else present.substatus,
            operation_id=operation_id,
            etag=etag,
            updated_at=now,
            thumbprint=thumbprint,
            common_name=spelling,
            group_made=group_made,
        )
    hub = allocate(enrollment, registration_id, linked)
    return Registration(
        registration_id,
        group_id,
        device_id,
        hub,
        INITIAL,
        operation_id,
        etag,
        now,
        now,
        thumbprint,
        spelling,
        group_made,
    )
