"""Mapping of domain errors to Azure Resource Manager: status and code ("Common ARM error codes")."""

from collections.abc import Mapping

from birthmark import errors
from birthmark.azure_arm import service, wire
from birthmark.azure_arm.rules import operation_paths
from birthmark.iam.missing_right_errors import RightMissingError
from birthmark.pki.ca_possession_proof import PossessionNotProvenError
from birthmark.pki.registered_ca_certificate import AuthorityChangedError

HTTP: Mapping[type[errors.BirthmarkError], tuple[int, str]] = {
    operation_paths.OperationNotServedError: (501, "NotImplemented"),
    operation_paths.PathInvalidError: (400, "InvalidResourceName"),
    wire.ApiVersionError: (400, "MissingApiVersionParameter"),
    wire.BodyInvalidError: (400, "InvalidRequestContent"),
    service.HubChangedError: (412, "PreconditionFailed"),
    RightMissingError: (403, "AuthorizationFailed"),
    AuthorityChangedError: (412, "PreconditionFailed"),
    PossessionNotProvenError: (400, "CertificateVerificationFailed"),
    errors.InvalidRequestError: (400, "BadRequest"),
    errors.UnauthenticatedError: (401, "AuthenticationFailed"),
    errors.ForbiddenError: (403, "Forbidden"),
    errors.NotFoundError: (404, "ResourceNotFound"),
    errors.ConflictError: (409, "Conflict"),
    errors.PolicyError: (400, "BadRequest"),
    errors.ThrottledError: (429, "TooManyRequests"),
    errors.UnavailableError: (503, "ServiceUnavailable"),
}


def http_error(error: errors.BirthmarkError) -> tuple[int, str]:
    """Return the HTTP status and code of the error's nearest listed base class."""
    return next(HTTP[kind] for kind in type(error).__mro__ if kind in HTTP)
