"""Mapping of domain errors to EST: a status and plain text (RFC 7030 section 4.2.3)."""

from collections.abc import Mapping

from birthmark import errors
from birthmark.ca import revocation
from birthmark.ca.rules import issuance_eligibility
from birthmark.est import upstream, wire
from birthmark.est.rules import caller_rate_limit, client_certificate_identity
from birthmark.est.service import approvals, operations

STATUS: Mapping[type[errors.BirthmarkError], int] = {
    errors.InvalidRequestError: 400,
    errors.UnauthenticatedError: 401,
    errors.ForbiddenError: 403,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.PolicyError: 403,
    errors.ThrottledError: 429,
    errors.UnavailableError: 503,
    # of this module
    wire.EstBodyTooLargeError: 413,
    wire.EstMediaTypeError: 415,
    wire.FullCmcError: 501,
    upstream.UpstreamPendingError: 202,
    upstream.UpstreamBusyError: 503,
    wire.MethodWrongError: 405,
    operations.TokenUsedError: 403,
    approvals.ApprovalPendingError: 202,
    caller_rate_limit.EstBusyError: 503,
    # CA errors whose kind differs from what an EST client expects
    issuance_eligibility.KeyTakenError: 403,
    revocation.CertificateRevokedError: 403,
    revocation.NameMovedError: 503,
}


_NOT_FAILED = (
    *(errors.ThrottledError, upstream.UpstreamPendingError),  # the client retries and may succeed
    *(
        client_certificate_identity.ClientCertificateRevokedError,
        revocation.CertificateRevokedError,
        approvals.ApprovalRejectedError,
    ),
    *(issuance_eligibility.KeyRevokedError, issuance_eligibility.NameLostError),  # operator decision
)


def find_unrenewed_certificate(error: errors.BirthmarkError) -> str:
    """Return the certificate that this error leaves without a successor, "" for an intended rejection."""
    return "" if isinstance(error, _NOT_FAILED) else error.facts.get("renews", "")


def status_of(error: errors.BirthmarkError) -> int:
    """Return the HTTP status of the error's nearest listed base class."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
