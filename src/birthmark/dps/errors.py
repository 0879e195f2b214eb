"""Domain errors as DPS shows them: HTTP status and Azure's error number, and CONNACK's reasons."""

from collections.abc import Mapping
from http import HTTPStatus

from birthmark import errors
from birthmark.ca.ordering import IssuingPolicyUnknownError
from birthmark.dps import model, wire
from birthmark.dps.rules import allocation, attestation, enrollment, issuing, queries, registration, tiers, tpm
from birthmark.dps.service import authorities, enrollments, instances, registrations
from birthmark.dps.service import queries as queries_service
from birthmark.mqtt.reasons import ReasonCode
from birthmark.outbound.questions import QuestionsWaitError
from birthmark.people.demand import RightMissingError, said
from birthmark.pki.certificates import CertificateInvalidError
from birthmark.pki.checks import ChainError
from birthmark.pki.csr import CsrRefusedError
from birthmark.pki.tpm_public import TpmKeyInvalidError

HTTP: Mapping[type[errors.BirthmarkError], tuple[int, int]] = {
    attestation.AttestationError: (401, 401002),
    attestation.NoProofError: (401, 401002),
    attestation.RegistrationIdMismatchError: (401, 401002),
    attestation.ClientIdError: (401, 401002),
    attestation.OtherRegistrationError: (401, 401002),
    attestation.NoNameError: (401, 401002),
    attestation.NotEnrolledError: (401, 401002),
    attestation.TokenNotEnrolledError: (401, 401002),
    tpm.TpmNotEnrolledError: (401, 401002),
    tpm.TpmMismatchError: (401, 401002),
    attestation.IntermediateNotSentError: (401, 401002),
    attestation.CertificateMismatchError: (401, 401002),
    attestation.CaUnverifiedError: (401, 401002),
    attestation.CaNotOnRecordError: (401, 401002),
    attestation.DevicesOwnCaError: (401, 401002),
    attestation.EnrollmentDisabledError: (401, 401002),
    attestation.DeviceTakenBackError: (401, 401002),
    enrollment.EnrollmentInvalidError: (400, 400004),
    enrollment.AttestationNotServedError: (400, 400004),
    registration.NoHubError: (400, 400208),
    allocation.WebhookInvalidError: (400, 400004),
    allocation.AllocationFailedError: (400, 400207),
    allocation.AllocationEmptyError: (400, 400208),
    allocation.AllocationUnauthorizedError: (400, 400209),
    QuestionsWaitError: (429, 429001),
    registration.AllocationNotServedError: (400, 400004),
    registration.RegistrationPinnedError: (401, 401002),
    issuing.NoIssuingPolicyError: (400, 400004),
    issuing.CsrNameError: (400, 400004),
    IssuingPolicyUnknownError: (400, 400004),
    instances.UnknownScopeError: (404, 404001),
    instances.UnknownInstanceError: (404, 404001),
    instances.FirstInstanceError: (409, 409001),
    instances.InstanceExistsError: (409, 409001),
    instances.ServiceTokenError: (401, 401002),
    enrollments.EnrollmentNotFoundError: (404, 404201),
    enrollments.EnrollmentExistsError: (409, 409201),
    enrollments.EnrollmentChangedError: (412, 412001),
    authorities.UnknownAuthorityError: (404, 404001),
    authorities.AuthorityExistsError: (409, 409001),
    authorities.AuthorityNotACAError: (400, 400004),
    authorities.NoCodeError: (409, 409001),
    registrations.RegistrationNotFoundError: (404, 404202),
    registrations.RegistrationBusyError: (429, 429001),
    registrations.RegistrationThrottledError: (429, 429001),
    model.GroupIdInvalidError: (400, 400004),
    model.DeviceIdInvalidError: (400, 400004),
    wire.UserNameError: (400, 400004),
    wire.TopicError: (400, 400004),
    queries_service.QueryTooBroadError: (400, 400004),
    queries.QueryInvalidError: (400, 400004),
    queries.QueryNotServedError: (400, 400004),
    wire.BodyInvalidError: (400, 400004),
    wire.AnswerInvalidError: (400, 400004),
    TpmKeyInvalidError: (400, 400004),
    CertificateInvalidError: (400, 400004),
    CsrRefusedError: (400, 400004),
    ChainError: (401, 401002),
    tiers.DpsTierThrottledError: (429, 429001),
    errors.InvalidRequestError: (400, 400004),
    errors.UnauthenticatedError: (401, 401002),
    RightMissingError: (403, 403000),  # the real service knows no people
    errors.ForbiddenError: (401, 401002),
    errors.NotFoundError: (404, 404001),
    errors.ConflictError: (409, 409001),
    errors.PolicyError: (400, 400004),
    errors.ThrottledError: (429, 429001),
    errors.UnavailableError: (503, 503001),
}


def http_error(error: errors.BirthmarkError) -> tuple[int, int]:
    """Return status and Azure's error number of the nearest listed ancestor."""
    return next(HTTP[kind] for kind in type(error).__mro__ if kind in HTTP)


def wire_message(error: errors.BirthmarkError) -> str:
    """Return the text a refused device may see: no more than the real service says about a failed proof."""
    return "Unauthorized" if http_error(error)[0] == HTTPStatus.UNAUTHORIZED else said(error)


def connack_reason(error: errors.BirthmarkError) -> int:
    """Return the reason for a refused CONNECT: return code 2 (client id), 5 where trying again cannot help, else 3."""
    if isinstance(error, attestation.ClientIdError):
        return ReasonCode.CLIENT_ID_NOT_VALID
    is_temporary = isinstance(error, errors.UnavailableError | errors.ThrottledError)
    return ReasonCode.SERVER_UNAVAILABLE if is_temporary else ReasonCode.NOT_AUTHORIZED
