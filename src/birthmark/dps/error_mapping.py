"""Mapping of domain errors to DPS: HTTP status and Azure's error number, and reasons of CONNACK."""

from collections.abc import Mapping
from http import HTTPStatus

from birthmark import errors
from birthmark.dps.rules import attestation, custom_allocation, registration
from birthmark.dps.service import enrollments, registrations
from birthmark.iam.missing_right_errors import RightMissingError, format_refusal
from birthmark.mqtt.reason_codes import ReasonCode

HTTP: Mapping[type[errors.BirthmarkError], tuple[int, int]] = {
    registration.NoHubError: (400, 400208),
    custom_allocation.AllocationFailedError: (400, 400207),
    custom_allocation.AllocationEmptyError: (400, 400208),
    custom_allocation.AllocationUnauthorizedError: (400, 400209),
    enrollments.EnrollmentNotFoundError: (404, 404201),
    enrollments.EnrollmentExistsError: (409, 409201),
    enrollments.EnrollmentChangedError: (412, 412001),
    registrations.RegistrationNotFoundError: (404, 404202),
    errors.InvalidRequestError: (400, 400004),
    errors.UnauthenticatedError: (401, 401002),
    RightMissingError: (403, 403000),  # the real service has no users
    errors.ForbiddenError: (401, 401002),
    errors.NotFoundError: (404, 404001),
    errors.ConflictError: (409, 409001),
    errors.PolicyError: (400, 400004),
    errors.ThrottledError: (429, 429001),
    errors.UnavailableError: (503, 503001),
}


def http_error(error: errors.BirthmarkError) -> tuple[int, int]:
    """Return the HTTP status and Azure error number of the error's nearest listed base class."""
    return next(HTTP[kind] for kind in type(error).__mro__ if kind in HTTP)


def wire_message(error: errors.BirthmarkError) -> str:
    """Return the error text for a rejected device; like the real service, it gives no details of a failed proof."""
    return "Unauthorized" if http_error(error)[0] == HTTPStatus.UNAUTHORIZED else format_refusal(error)


def connack_reason(error: errors.BirthmarkError) -> int:
    """Return the reason for a refused CONNECT: return code 2 (client ID), 5 if a retry cannot help, otherwise 3."""
    if isinstance(error, attestation.ClientIdError):
        return ReasonCode.CLIENT_ID_NOT_VALID
    is_temporary = isinstance(error, errors.UnavailableError | errors.ThrottledError)
    return ReasonCode.SERVER_UNAVAILABLE if is_temporary else ReasonCode.NOT_AUTHORIZED
