"""Attestation rules: the enrollment of a proof, and its validity (DPS documentation, "X.509 attestation").

An individual enrollment for the ID takes precedence. Otherwise, the group of the certificate closest to the leaf
counts. The registration ID must be the leaf's common name, case-insensitive.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.x509.oid import NameOID

from birthmark.auth.sas import check_resource, check_sas, derive_device_key, parse_sas
from birthmark.dps.model import Claim, Enrollment, EnrollmentSigner, SymmetricKey, X509Individual
from birthmark.errors import ForbiddenError, UnauthenticatedError
from birthmark.pki.certificates import Certificate
from birthmark.pki.names_and_registration_ids import fold
from birthmark.pki.path_validation import MAX_BAG, MAX_DEPTH, SignatureBrokenError, Signatures, build_chain, check_dates
from birthmark.pki.registered_ca_certificate import CaCertificate
from birthmark.pki.single_certificate_checks import check_client

_MAX_CA_NAME = 60


class AttestationError(UnauthenticatedError):
    """The attestation of a device was rejected."""

    code = "dps.attestation_refused"


class NoProofError(AttestationError):
    """The device presented no certificate and no token."""

    code = "dps.no_proof"
    message = "The device presented {presented}"
    cause = "The client for {registration_id} presented {presented}, but the enrollment requires {wanted}."
    fix = (
        "Configure the client with the enrolled certificate and its key, or with the symmetric key. To register with "
        "X509_CERT_FILE and X509_KEY_FILE: `birthmark device register`"
    )
    registration_id: str
    presented: str
    wanted: str


class RegistrationIdMismatchError(AttestationError):
    """The registration ID is not the certificate's common name."""

    code = "dps.registration_id_mismatch"
    cause = "The client registered as {registration_id}, but its certificate's common name is {common_name}."
    fix = "Register with the certificate's common name: `export DPS_X509_REGISTRATION_ID={common_name}`"
    common_name: str = ""
    registration_id: str
    thumbprint: bytes = b""


class OtherRegistrationError(AttestationError):
    """The body names a different device than the request."""

    code = "dps.other_registration"
    cause = "The request is for {own}, but its body contains the registration ID {registration_id}."
    fix = "Use the same registration ID in the request and in its body, as the SDKs and `birthmark device register` do."
    own: str
    registration_id: str


class ClientIdError(AttestationError):
    """The client ID is not the registration ID."""

    code = "dps.client_id_mismatch"
    cause = "{registration_id} connected with the client ID {client_id}; DPS accepts only the registration ID."
    fix = "Set the client ID to {registration_id}, as the SDKs and `birthmark device register` do."
    client_id: str
    registration_id: str


def check_client_id(client_id: str, registration_id: str) -> None:
    """Raise `ClientIdError` unless MQTT's client ID is the registration ID, case-insensitive (DPS MQTT support)."""
    if client_id.lower() != registration_id.lower():
        raise ClientIdError(client_id=client_id[:128], registration_id=registration_id)


def check_same(own: str, named: str | None) -> None:
    """Raise `OtherRegistrationError` if a body names a registration ID other than the request's `own`."""
    if named is not None and named.lower() != own.lower():
        raise OtherRegistrationError(own=own, registration_id=named[:128])


class NoNameError(RegistrationIdMismatchError):
    """The certificate has no common name."""

    code = "dps.no_common_name"
    cause = (
        "The certificate '{subject}' has no common name. The common name must be the registration ID {registration_id}."
    )
    fix = "Issue a new certificate and key for the device: `birthmark ca issue {registration_id} --dir ca`"
    subject: str


class NotEnrolledError(AttestationError):
    """The device is not enrolled."""

    code = "dps.not_enrolled"
    message = "{registration_id} is not enrolled"
    cause = (
        "Scope {scope} has neither an individual enrollment {registration_id} nor an enrollment group whose CA "
        "issued the device's certificate (issuer: {issuer})."
    )
    fix = (
        "If the device is yours, enroll the certificate that it presented: `birthmark device enroll --presented "
        "{thumbprint}{options}`. Alternatively, enroll the device's CA: `birthmark device enroll-group NAME --cert "
        "CA-FILE{options}`."
    )
    issuer: str
    options: str = ""
    """Option that selects a provisioning service other than the first."""
    registration_id: str
    scope: str
    thumbprint: bytes = b""


class TokenNotEnrolledError(NotEnrolledError):
    """The device, which presented a token, is not enrolled."""

    code = "dps.token_not_enrolled"
    cause = (
        "Scope {scope} has neither an individual enrollment {registration_id} nor an enrollment group whose "
        "symmetric key signed the device's token."
    )
    fix = (
        "If the device is yours, enroll it with its own symmetric key, which the command writes to a file: "
        "`birthmark device enroll {registration_id} --symmetric-key {registration_id}.key{options}`"
    )
    issuer: str = ""


class IntermediateNotSentError(AttestationError):
    """The issuer was not sent and is not registered."""

    code = "dps.intermediate_not_sent"
    cause = (
        "The chain that the device sent ends at '{subject}'. The issuer '{issuer}' is neither in the chain nor "
        "registered, but may chain up to the CA of the group {group}."
    )
    fix = (
        "If the device belongs to the group {group}, append the intermediate certificates to the device's "
        "certificate file, after the leaf certificate. Otherwise, enroll the device itself: `birthmark device enroll "
        '--cert "$X509_CERT_FILE"{options}`.'
    )
    group: str = "?"
    issuer: str
    options: str = ""
    subject: str
    registration_id: str
    thumbprint: bytes


class CertificateMismatchError(AttestationError):
    """The certificate is not the enrolled one."""

    code = "dps.certificate_mismatch"
    cause = "{registration_id} presented the certificate {thumbprint}, but the enrollment contains {expected}."
    fix = (
        "If the certificate was reissued, update the enrollment: `birthmark device enroll --presented "
        "{thumbprint}{options} --update`."
    )
    expected: str
    options: str = ""
    registration_id: str
    thumbprint: bytes


class CaUnverifiedError(AttestationError):
    """The CA is not verified."""

    code = "dps.ca_unverified"
    cause = "The CA '{subject}' of enrollment group {group} is not verified."
    fix = (
        "Verify the CA without proof of possession: `birthmark dps ca verify {name} --without-proof{options}`. Or "
        "get a verification code to prove possession, as Azure requires: `birthmark dps ca code {name}{options}`."
    )
    group: str
    name: str
    options: str = ""
    subject: str


class CaNotOnRecordError(AttestationError):
    """The group's CA is not registered."""

    code = "dps.ca_not_on_record"
    cause = "Neither the CA '{subject}' of enrollment group {group} nor any CA above it is registered."
    fix = "If that CA is yours, register it: `birthmark dps ca create {name} --of-group {group} --verified{options}`"
    group: str
    name: str
    options: str = ""
    subject: str


class DeviceCaNotTrustedError(AttestationError):
    """A device's CA issued this certificate."""

    code = "dps.devices_own_ca"
    cause = (
        "'{subject}', the issuer of the certificate of {registration_id}, is a device's CA and cannot authenticate "
        "devices of group {group}."
    )
    fix = (
        "If you trust the device, enroll it with its certificate: `birthmark device enroll --cert "
        '"$X509_CERT_FILE"{options}`'
    )
    group: str
    options: str = ""
    registration_id: str
    subject: str


class EnrollmentDisabledError(ForbiddenError):
    """The enrollment is disabled."""

    code = "dps.enrollment_disabled"
    message = "The enrollment {enrollment} is disabled"
    cause = "The enrollment {enrollment} is disabled."
    fix = "Enable the enrollment: `birthmark device enable {enrollment}{options} --dps {instance}`"
    enrollment: str
    instance: str = "birthmark"
    options: str
    registration_id: str


class DeviceTakenBackError(EnrollmentDisabledError):
    """The device was revoked as lost."""

    code = "dps.device_taken_back"
    message = "The device {registration_id} was revoked"
    cause = (
        "The device '{registration_id}' was revoked as lost. Its name stays blocked, even if its enrollment is enabled."
    )
    fix = (
        "Inspect the device: `birthmark device show {registration_id}`. To use the name for another device with its "
        "own key, release the name: `birthmark pki release {registration_id}`"
    )


@dataclass(frozen=True, slots=True)
class GroupHit:
    """Enrollment group to which a chain leads."""

    group_id: str
    signer: Certificate
    through: tuple[Certificate, ...] = ()
    """CAs between the leaf and the signer, closest to the leaf first."""


def check_common_name(claim: Claim) -> Certificate:
    """Return the leaf, whose common name must be the registration ID. Raise `AttestationError`."""
    if (leaf := claim.leaf) is None:
        raise NoProofError(
            registration_id=claim.registration_id, presented="no certificate", wanted="an X.509 certificate"
        )
    name = leaf.subject_cn
    if not name:
        raise NoNameError(registration_id=claim.registration_id, subject=leaf.subject_text, thumbprint=leaf.thumbprint)
    if fold(name) != fold(claim.registration_id):
        raise RegistrationIdMismatchError(
            registration_id=claim.registration_id, common_name=name, thumbprint=leaf.thumbprint
        )
    return leaf


def check_individual(enrollment: Enrollment, claim: Claim, now: datetime) -> None:
    """Raise unless `claim` proves this individual enrollment."""
    check_enabled(enrollment, claim)
    if isinstance(enrollment.attestation, SymmetricKey):
        check_token(claim, enrollment.attestation.keys, now)
        return
    leaf = check_common_name(claim)
    on_record = enrollment.attestation.thumbprints if isinstance(enrollment.attestation, X509Individual) else ()
    if leaf.thumbprint not in on_record:
        expected = " or ".join(one.hex() for one in on_record) or "none"
        raise CertificateMismatchError(
            registration_id=claim.registration_id, thumbprint=leaf.thumbprint, expected=expected
        )
    check_client(leaf, is_pinned=True)
    check_dates(leaf, now)


def check_group(enrollment: Enrollment, claim: Claim, now: datetime) -> None:
    """Raise unless `claim` proves membership in this symmetric-key group."""
    check_enabled(enrollment, claim)
    keys = enrollment.attestation.keys if isinstance(enrollment.attestation, SymmetricKey) else ()
    check_token(claim, [derive_device_key(key, claim.registration_id) for key in keys], now)


def check_enabled(enrollment: Enrollment, claim: Claim) -> None:
    """Raise `EnrollmentDisabledError` for a disabled enrollment."""
    if not enrollment.is_enabled:
        options = " --group" if enrollment.is_group else ""
        raise EnrollmentDisabledError(enrollment=enrollment.id, options=options, registration_id=claim.registration_id)


def check_token(claim: Claim, keys: Sequence[bytes], now: datetime) -> None:
    """Check the claim's shared access signature against `keys`."""
    if not claim.token:
        raise NoProofError(registration_id=claim.registration_id, presented="no token", wanted="a symmetric key")
    token = parse_sas(claim.token)
    check_sas(token, keys, now)
    check_resource(token, [f"{claim.id_scope}/registrations/{claim.registration_id}"])


def check_leaf(claim: Claim, now: datetime) -> None:
    """Raise unless the leaf may authenticate the claim's device at `now`; its issuer is checked later."""
    leaf = check_common_name(claim)
    check_client(leaf)
    check_dates(leaf, now)


def find_group(
    claim: Claim,
    signers: Sequence[EnrollmentSigner],
    authorities: Sequence[CaCertificate],
    cache: Signatures,
    now: datetime,
) -> GroupHit:
    """Return the group whose certificate issued the leaf through the chain sent, closest to the leaf.

    The leaf was checked before (`check_leaf`). `signers` and `authorities` are those whose subject is the issuer of
    any presented certificate. Raise `AttestationError` or a `ChainError`.
    """
    leaf = claim.leaf
    assert leaf is not None  # noqa: S101 - it was checked
    current, bag, through = leaf, claim.chain[:MAX_BAG], list[Certificate]()
    if not signers and not authorities:  # no needless signature check
        bag, current = (), _top_by_name(bag, leaf)
    for _ in range(MAX_DEPTH):
        check_dates(current, now)
        for signer in signers:
            if signer.certificate.subject_der == current.issuer_der and cache.is_signed_by(current, signer.certificate):
                # The walk only finds the group; this call verifies the chain (CA:TRUE, path length …).
                build_chain(leaf, bag, [signer.certificate], now, allow_partial=True, cache=cache)
                check_verified(signer, bag, authorities, cache, now)
                return GroupHit(signer.group_id, signer.certificate, tuple(through))
        above = _issuer_in(bag, current, cache)
        if above is None:
            break
        current = above
        through.append(above)
    namesakes = [*(s.certificate for s in signers), *(a.certificate for a in authorities)]
    if any(c.subject_der == current.issuer_der and not cache.is_signed_by(current, c) for c in namesakes):
        raise SignatureBrokenError(
            registration_id=claim.registration_id, subject=current.subject_text, issuer=current.issuer_text
        )
    if not current.is_self_issued and _issuer_in([a.certificate for a in authorities], current, cache) is None:
        raise IntermediateNotSentError(
            registration_id=claim.registration_id,
            subject=current.subject_text,
            issuer=current.issuer_text,
            thumbprint=leaf.thumbprint,
        )
    raise NotEnrolledError(
        registration_id=claim.registration_id,
        scope=claim.id_scope,
        issuer=leaf.issuer_text,
        thumbprint=leaf.thumbprint,
    )


def judge_missing_issuer(
    missing: IntermediateNotSentError, claim: Claim, signers: Sequence[EnrollmentSigner]
) -> AttestationError:
    """Return the refusal for a chain that ends below every registered CA, given the CAs of all groups.

    Advice about the chain is returned only if a group probably applies; otherwise the device counts as not enrolled.
    """
    leaf = claim.leaf
    assert leaf is not None  # noqa: S101 - its issuer is missing
    for signer in signers:
        if _may_be_above(signer.certificate, leaf):
            missing.add_facts(group=signer.group_id)
            return missing
    return NotEnrolledError(
        registration_id=claim.registration_id,
        scope=claim.id_scope,
        issuer=leaf.issuer_text,
        thumbprint=leaf.thumbprint,
    )


def _may_be_above(ca: Certificate, leaf: Certificate) -> bool:
    """Return whether `ca` may have issued the certificate of the leaf's issuer, by path length and organization."""
    if ca.extensions.path_length == 0:
        return False
    theirs, ours = (name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME) for name in (ca.subject, leaf.issuer))
    return [one.value for one in theirs] == [one.value for one in ours]


def check_verified(
    signer: EnrollmentSigner,
    bag: Sequence[Certificate],
    authorities: Sequence[CaCertificate],
    cache: Signatures,
    now: datetime,
) -> None:
    """Check that the group's certificate is a verified CA, or chains to one. Raise `CaUnverifiedError`."""
    seen = [signer.certificate]
    for _ in range(MAX_DEPTH):
        check_dates(seen[-1], now)  # an expired root proves nothing
        if any(a.is_verified and a.certificate == seen[-1] for a in authorities):
            return
        above = _issuer_in([*(a.certificate for a in authorities), *bag], seen[-1], cache)
        if above is None:
            break
        seen.append(above)
    name = next((a.name for a in authorities if a.certificate in seen), None)
    if name is not None:
        raise CaUnverifiedError(group=signer.group_id, subject=signer.certificate.subject_text, name=name)
    raise CaNotOnRecordError(
        group=signer.group_id,
        subject=signer.certificate.subject_text,
        name=ca_name_for(signer.group_id),
    )


def ca_name_for(group_id: str, tail: str = "") -> str:
    """Return a valid name for a group's CA certificate."""
    name = re.sub(r"[^a-z0-9\-._]", "-", group_id).lstrip("-._")[: _MAX_CA_NAME - len(tail)]
    return f"{name or 'group-ca'}{tail}"


def _top_by_name(bag: Sequence[Certificate], leaf: Certificate) -> Certificate:
    """Return the top of the presented chain, by issuer and subject names only."""
    path = [leaf]
    while len(path) <= MAX_DEPTH:
        above = [ca for ca in bag if ca.is_ca and ca.subject_der == path[-1].issuer_der and ca not in path]
        if not above:
            break
        path.append(above[0])
    return path[-1]


def _issuer_in(candidates: Sequence[Certificate], certificate: Certificate, cache: Signatures) -> Certificate | None:
    for candidate in candidates:
        is_possible = candidate.subject_der == certificate.issuer_der and candidate.is_ca and candidate != certificate
        if is_possible and cache.is_signed_by(certificate, candidate):
            return candidate
    return None
