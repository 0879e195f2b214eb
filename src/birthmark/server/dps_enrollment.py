"""Device enrollment at a provisioning service of this server, by certificate."""

import shlex
from dataclasses import dataclass, field

from birthmark.clock_and_entropy import Clock
from birthmark.dps.enrollment_document import (
    AttestationMechanism,
    Capabilities,
    CertificateEntry,
    CertificatePair,
    EnrollmentDocument,
    X509Attestation,
)
from birthmark.dps.model import Enrollment, X509Individual, parse_device_id
from birthmark.dps.service.enrollments import EnrollmentExistsError
from birthmark.errors import PolicyError
from birthmark.operator_api.device_enrollment_by_certificate import EnrollmentResult, EnrollmentSpec
from birthmark.pki.names_and_registration_ids import RegistrationId, parse_registration_id
from birthmark.server.composition_root import ServerServices


class CertificateUselessError(PolicyError):
    """A device with this certificate could never register."""

    code = "enroll.certificate_useless"
    cause = "A device with the certificate '{subject}' would be rejected: {detail}."
    fix = "Request a valid certificate from the issuer."
    for_a_person = "only the issuer can replace the certificate"
    detail: str
    subject: str


@dataclass(frozen=True, slots=True)
class ServerEnrollment:
    """Enrolls devices through the services of this process."""

    rooms: ServerServices = field(repr=False)
    clock: Clock = field(repr=False)

    async def preview(self, name: str, spec: EnrollmentSpec) -> EnrollmentResult:
        """Return the result that enrolling a device would have. Raise the reason if it cannot be enrolled."""
        registration_id, _ = await self._check(spec)
        instance = self.rooms.instances.by_name(name)
        present = await self.rooms.enrollments.find(instance.id_scope, registration_id, is_group=False)
        return EnrollmentResult.WOULD_CREATE if present is None else _get_existing_result(present, spec)

    async def enroll(self, name: str, spec: EnrollmentSpec, *, actor: str) -> EnrollmentResult:
        """Enroll a device.

        Raise the reason if it cannot be enrolled, and `EnrollmentExistsError` if it is enrolled differently.
        """
        registration_id, device_id = await self._check(spec)
        instance = self.rooms.instances.by_name(name)
        pair = CertificatePair(primary=CertificateEntry(certificate=spec.certificate.pem()))
        wanted = EnrollmentDocument(
            AttestationMechanism("x509", x509=X509Attestation(client_certificates=pair)),
            registration_id=registration_id,
            device_id=device_id,
            capabilities=Capabilities(),
        )
        try:
            await self.rooms.enrollments.create(instance, wanted, actor=actor)
        except EnrollmentExistsError:
            present = await self.rooms.enrollments.get(instance.id_scope, registration_id, is_group=False)
            return _get_existing_result(present, spec)
        return EnrollmentResult.CREATED

    async def _check(self, spec: EnrollmentSpec) -> tuple[RegistrationId, str]:
        """Return the registration id and the device id after checking the certificate."""
        from birthmark.manifests.certificate_preflight_checks import doubts_of  # it also loads the list verification

        certificate = spec.certificate
        doubts = doubts_of(certificate, self.clock.now(), needs_common_name=True)
        if doubts:
            raise CertificateUselessError(subject=certificate.subject_text, detail=" and ".join(doubts))
        await self.rooms.authority.revocations.check(certificate)
        name = certificate.subject_cn or ""
        return parse_registration_id(name), parse_device_id(spec.device_id or name)


def _get_existing_result(present: Enrollment, spec: EnrollmentSpec) -> EnrollmentResult:
    """Return the result for a device that is already enrolled as requested.

    Raise `EnrollmentExistsError` if it is enrolled differently.
    """
    attestation = present.attestation
    is_it = isinstance(attestation, X509Individual) and spec.certificate.thumbprint in attestation.thumbprints
    wanted = spec.device_id or spec.certificate.subject_cn or ""
    called = present.device_id or present.id
    if is_it and present.is_enabled and called.lower() == wanted.lower():
        return EnrollmentResult.UNCHANGED
    refusal = EnrollmentExistsError(enrollment=present.id)
    shown = f"Show the existing enrollment: `birthmark device show {shlex.quote(present.id)}`."
    refusal.quote(fix=f"{shown} To update it from the list: `birthmark device enroll-list LIST --update`")
    raise refusal
