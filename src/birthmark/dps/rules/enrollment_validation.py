"""Validation and completion of an enrollment before it is stored."""

import base64
import binascii

import msgspec

from birthmark.clock_and_entropy import Entropy
from birthmark.dps.enrollment_document import (
    AttestationMechanism,
    CertificateEntry,
    CertificatePair,
    EnrollmentDocument,
    SymmetricKeys,
    X509Attestation,
)
from birthmark.dps.model import (
    Enrollment,
    SymmetricKey,
    TpmKeys,
    X509Group,
    X509Individual,
    parse_device_id,
    parse_group_id,
)
from birthmark.dps.rules.registration import AllocationNotServedError
from birthmark.dps.wire import info_of, parse_tpm
from birthmark.errors import InvalidRequestError
from birthmark.pki.certificates import Certificate, Thumbprint, parse_any
from birthmark.pki.names_and_registration_ids import parse_registration_id

ALLOCATIONS = {None, "hashed", "static", "custom"}
_MIN_KEY_BYTES, _MAX_KEY_BYTES = 16, 64


class EnrollmentInvalidError(InvalidRequestError):
    """The enrollment is not valid."""

    code = "dps.enrollment_invalid"
    message = "The enrollment is not valid: {detail}"
    cause = "The enrollment {enrollment} is not valid: {detail}."
    fix = 'Create a valid enrollment: `birthmark device enroll --cert "$X509_CERT_FILE"`'
    detail: str
    enrollment: str


class AttestationNotServedError(EnrollmentInvalidError):
    """The attestation mechanism is not supported."""

    code = "dps.attestation_not_served"
    cause = "The enrollment {enrollment} has the attestation mechanism {detail}, which is not supported."
    fix = (
        "Use x509, symmetricKey, or, for individual enrollments, tpm. To enroll a device with x509: `birthmark "
        'device enroll --cert "$X509_CERT_FILE"`'
    )


def complete(
    enrollment: EnrollmentDocument, previous: EnrollmentDocument | None, entropy: Entropy
) -> EnrollmentDocument:
    """Return the document with normalized IDs, parsed certificates and generated keys.

    Raise `InvalidRequestError`; a private key in place of a certificate has its own class.
    """
    if enrollment.is_group:
        enrollment = msgspec.structs.replace(enrollment, enrollment_group_id=parse_group_id(enrollment.id))
    else:
        enrollment = msgspec.structs.replace(enrollment, registration_id=parse_registration_id(enrollment.id))
        if enrollment.device_id:
            parse_device_id(enrollment.device_id)
    if enrollment.provisioning_status not in {"enabled", "disabled"}:
        raise EnrollmentInvalidError(enrollment=enrollment.id, detail="provisioningStatus")
    if enrollment.allocation_policy:  # case-insensitive: the portal writes Hashed, the command line hashed
        known = enrollment.allocation_policy.lower()
        enrollment = msgspec.structs.replace(enrollment, allocation_policy=known)
    elif enrollment.iot_hubs:
        detail = "allocationPolicy must be specified when iotHubs are specified"
        raise EnrollmentInvalidError(enrollment=enrollment.id, detail=detail)
    if enrollment.allocation_policy not in ALLOCATIONS:
        raise AllocationNotServedError(enrollment=enrollment.id, policy=enrollment.allocation_policy)
    if enrollment.allocation_policy == "custom" and enrollment.custom_allocation_definition is None:
        raise EnrollmentInvalidError(
            enrollment=enrollment.id, detail="allocationPolicy custom requires a customAllocationDefinition"
        )
    if (member := _dropped(enrollment)) is not None:
        raise EnrollmentInvalidError(enrollment=enrollment.id, detail=f"{member} would be dropped, leave it out")
    policy_of(enrollment)
    attestation = _attestation(enrollment, previous, entropy)
    return msgspec.structs.replace(enrollment, attestation=attestation)


def _dropped(document: EnrollmentDocument) -> str | None:
    """Return a member that this kind of enrollment does not support."""
    if document.is_group and document.device_id:
        return "deviceId of a group"
    if document.custom_allocation_definition is not None and document.allocation_policy != "custom":
        return f"customAllocationDefinition with allocationPolicy {document.allocation_policy or 'hashed'}"
    attestation = document.attestation
    parts = {"x509": attestation.x509, "symmetricKey": attestation.symmetric_key, "tpm": attestation.tpm}
    for name, part in parts.items():
        if part is not None and part != type(part)() and name != attestation.type:
            return f"attestation.{name} with type {attestation.type}"
    x509 = attestation.x509 or X509Attestation()
    if document.is_group:
        return "attestation.x509.clientCertificates of a group" if x509.client_certificates else None
    if x509.signing_certificates or (x509.ca_references and x509.ca_references.names()):
        return "attestation.x509.signingCertificates and caReferences of an individual enrollment"
    return None


def policy_of(document: EnrollmentDocument) -> str | None:
    """Return the issuing policy, from the members of any API version. Raise `EnrollmentInvalidError`.

    2026-11-01 has three members that belong together, 2025-07-01-preview has one, and the preview of 2021 has a CA's
    name. This server has one namespace, and the policy determines the CA. Of the three, only the policy's name counts.
    """
    three = (document.namespace_name, document.certificate_authority_name, document.certificate_policy_name)
    if any(three) and not all(three):
        detail = "namespaceName, certificateAuthorityName and certificatePolicyName belong together"
        raise EnrollmentInvalidError(enrollment=document.id, detail=detail)
    before = document.client_certificate_issuance_policy
    named = (
        document.certificate_policy_name,
        document.credential_policy_name,
        None if before is None else before.certificate_authority_name,
    )
    found = {one for one in named if one}
    if len(found) > 1:
        detail = f"it names the policies {' and '.join(sorted(found))}, and has one"
        raise EnrollmentInvalidError(enrollment=document.id, detail=detail)
    return found.pop() if found else None


def certificates_of(enrollment: EnrollmentDocument) -> list[Certificate]:
    """Return the signing certificates in a group's document."""
    x509 = enrollment.attestation.x509
    pair = x509.signing_certificates if x509 else None
    return [parse_any(entry.certificate) for entry in (pair.entries() if pair else []) if entry.certificate]


def _attestation(
    enrollment: EnrollmentDocument, previous: EnrollmentDocument | None, entropy: Entropy
) -> AttestationMechanism:
    given = enrollment.attestation
    if given.type == "symmetricKey":
        old = previous.attestation.symmetric_key if previous else None
        return AttestationMechanism(
            "symmetricKey", symmetric_key=_keys(enrollment.id, given.symmetric_key, old, entropy)
        )
    if given.type == "tpm" and given.tpm is not None and not enrollment.is_group:
        parse_tpm(given.tpm)
        return AttestationMechanism("tpm", tpm=given.tpm)
    if given.type != "x509":
        raise AttestationNotServedError(enrollment=enrollment.id, detail=given.type)
    x509 = given.x509 or X509Attestation()
    if enrollment.is_group:
        references = x509.ca_references if x509.ca_references and x509.ca_references.names() else None
        pair = _read(enrollment.id, x509.signing_certificates)
        if (pair is None) == (references is None):
            raise EnrollmentInvalidError(enrollment=enrollment.id, detail="give signingCertificates or caReferences")
        return AttestationMechanism("x509", X509Attestation(signing_certificates=pair, ca_references=references))
    pair = _read(enrollment.id, x509.client_certificates)
    if pair is None:
        raise EnrollmentInvalidError(enrollment=enrollment.id, detail="give clientCertificates")
    return AttestationMechanism("x509", X509Attestation(client_certificates=pair))


def _read(name: str, pair: CertificatePair | None) -> CertificatePair | None:
    if pair is None or not any(entry.certificate for entry in pair.entries()):
        return None
    return CertificatePair(_read_entry(name, pair.primary), _read_entry(name, pair.secondary))


def _read_entry(name: str, entry: CertificateEntry | None) -> CertificateEntry | None:
    if entry is None or entry == CertificateEntry():
        return None
    if not entry.certificate:
        raise EnrollmentInvalidError(enrollment=name, detail="a certificate of the pair has only its info")
    certificate = parse_any(entry.certificate)
    return CertificateEntry(certificate.pem(), info_of(certificate))


def _keys(name: str, keys: SymmetricKeys | None, old: SymmetricKeys | None, entropy: Entropy) -> SymmetricKeys:
    made = []
    for text, before in (
        (keys.primary_key if keys else None, old.primary_key if old else None),
        (keys.secondary_key if keys else None, old.secondary_key if old else None),
    ):
        key = text or before or base64.b64encode(entropy.token(64)).decode()
        try:
            size = len(base64.b64decode(key, validate=True))
        except (ValueError, binascii.Error) as error:
            raise EnrollmentInvalidError(enrollment=name, detail="a symmetric key must be base64") from error
        if not _MIN_KEY_BYTES <= size <= _MAX_KEY_BYTES:
            raise EnrollmentInvalidError(enrollment=name, detail="a symmetric key has 16 to 64 bytes")
        made.append(key)
    return SymmetricKeys(*made)


def enrollment_of(document: EnrollmentDocument) -> Enrollment:
    """Return the decision values of a complete document."""
    given, policy = document.attestation, document.reprovision_policy
    attestation: X509Individual | X509Group | SymmetricKey | TpmKeys
    if given.symmetric_key is not None:
        attestation = SymmetricKey(tuple(given.symmetric_key.raw()))
    elif given.tpm is not None:
        attestation = parse_tpm(given.tpm)
    elif document.is_group:
        attestation = X509Group()
    else:
        pair = given.x509.client_certificates if given.x509 else None
        infos = [entry.info for entry in (pair.entries() if pair else []) if entry.info]
        attestation = X509Individual(tuple(Thumbprint(bytes.fromhex(info.sha256_thumbprint)) for info in infos))
    only = document.iot_hub_host_name
    return Enrollment(
        document.id,
        attestation,
        is_group=document.is_group,
        is_enabled=document.provisioning_status != "disabled",
        device_id=document.device_id,
        is_edge=bool(document.capabilities and document.capabilities.iot_edge),
        hubs=(only,) if only else tuple(sorted(document.iot_hubs or ())),
        keeps_hub=policy is not None and not policy.update_hub_assignment,
        migrates=policy is None or policy.migrate_device_data,
        twin=document.initial_twin,
        policy=policy_of(document),
        webhook=None if document.custom_allocation_definition is None else document.custom_allocation_definition.host,
        made_at=document.created_date_time_utc,
        etag=document.etag or "",
    )
