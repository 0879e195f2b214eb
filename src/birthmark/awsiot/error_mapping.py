"""Mapping of domain errors to AWS IoT: HTTP status and exception name of the service model.

The CLI retries 500, 503, and ThrottlingException with any status five times, so permanent errors must not use them.
MQTT 3.1.1 has no errors: the connection is closed. MQTT 5 has reason codes.
"""

from collections.abc import Mapping

from birthmark import errors
from birthmark.auth import sigv4
from birthmark.awsiot import model
from birthmark.awsiot.rules import (
    custom_authorizers,
    job_executions,
    mqtt_protocol_limits,
    policy,
    provisioning_plan_model,
    shadows,
    temporary_credentials,
    topic_rule_evaluation,
)
from birthmark.awsiot.service import (
    authorizer_throttle,
    authorizers,
    ca_certificates,
    certificates,
    fleet_index,
    fleet_provisioning,
    job_documents_and_s3_files,
    lambda_functions,
    local_data_streams,
    policies,
    provisioning_templates,
    registration_tasks,
    role_aliases,
    rule_destinations,
    s3_buckets,
    thing_groups,
    thing_registration,
    thing_types,
    things,
)
from birthmark.awsiot.wire import index_query
from birthmark.awsiot.wire.jobs import JobRequestError, StatusNotForDevicesError
from birthmark.awsiot.wire.shadows import ShadowEncodingError
from birthmark.awsiot.wire.topic_rules import ActionNotServedError
from birthmark.broker.errors import (
    RetainedFullError,
    RetainedShareUsedError,
    SessionShareUsedError,
    SessionTakenError,
    TooManySessionsError,
)
from birthmark.mqtt.reason_codes import ReasonCode
from birthmark.net import mqtt_service_interface
from birthmark.outbound.ssrf_guard import AddressRefusedError, PlainRefusedError
from birthmark.pki.ca_possession_proof import PossessionCodeMismatchError, PossessionNotProvenError

_INVALID = (400, "InvalidRequestException")
_VALIDATION = (400, "CertificateValidationException")
_NOT_FOUND = (404, "ResourceNotFoundException")
_EXISTS = (409, "ResourceAlreadyExistsException")
_IN_USE = (409, "DeleteConflictException")
_FORBIDDEN = (403, "ForbiddenException")
_SIGNATURE = (403, "InvalidSignatureException")

HTTP: Mapping[type[errors.BirthmarkError], tuple[int, str]] = {
    sigv4.SignatureMissingError: (403, "MissingAuthenticationTokenException"),
    sigv4.SignatureMalformedError: (400, "IncompleteSignatureException"),
    sigv4.AccessKeyUnknownError: (403, "UnrecognizedClientException"),
    sigv4.SignatureMismatchError: _SIGNATURE,
    sigv4.ClockSkewError: _SIGNATURE,
    sigv4.WrongServiceError: _SIGNATURE,
    model.OperationNotServedError: (501, "NotImplementedException"),
    model.MemberNotServedError: (501, "NotImplementedException"),
    policy.PolicyMalformedError: (400, "MalformedPolicyException"),
    policy.KeyDeniedError: (403, "AccessDeniedException"),
    mqtt_protocol_limits.SlowConsumerError: (429, "LimitExceededException"),
    mqtt_protocol_limits.ReportDroppedError: (403, "ForbiddenException"),
    ShadowEncodingError: (415, "UnsupportedDocumentEncodingException"),
    shadows.ShadowShareUsedError: (429, "LimitExceededException"),
    shadows.TooManyShadowsError: (429, "LimitExceededException"),
    shadows.ShadowTooLargeError: (413, "RequestEntityTooLargeException"),
    StatusNotForDevicesError: (409, "InvalidStateTransitionException"),
    job_executions.JobExistsError: _EXISTS,
    job_documents_and_s3_files.TooManyReadersError: (429, "LimitExceededException"),
    job_executions.JobStateError: (409, "InvalidStateTransitionException"),
    job_executions.ExecutionStateError: (409, "InvalidStateTransitionException"),
    job_executions.ExecutionVersionError: _INVALID,
    job_executions.CancelVersionError: (409, "VersionConflictException"),
    job_executions.ExecutionOverError: (410, "TerminalStateException"),
    TooManySessionsError: (429, "LimitExceededException"),
    SessionShareUsedError: (429, "LimitExceededException"),
    RetainedFullError: (429, "LimitExceededException"),
    RetainedShareUsedError: (429, "LimitExceededException"),
    AddressRefusedError: _INVALID,
    PlainRefusedError: _INVALID,
    topic_rule_evaluation.UnknownRuleError: (401, "UnauthorizedException"),  # as if not permitted
    topic_rule_evaluation.RuleExistsError: _EXISTS,
    topic_rule_evaluation.SqlInvalidError: (400, "SqlParseException"),
    topic_rule_evaluation.RuleLoopError: _INVALID,
    topic_rule_evaluation.RuleFailedError: _INVALID,
    topic_rule_evaluation.RuleActionFailedError: _INVALID,
    ActionNotServedError: (501, "NotImplementedException"),
    rule_destinations.UnknownDestinationError: (401, "UnauthorizedException"),
    rule_destinations.DestinationExistsError: _EXISTS,
    local_data_streams.StreamExistsError: _EXISTS,
    things.ThingExistsError: _EXISTS,
    things.ThingVersionError: (409, "VersionConflictException"),
    thing_groups.ThingGroupExistsError: _EXISTS,
    thing_groups.ThingGroupVersionError: (409, "VersionConflictException"),
    index_query.QueryInvalidError: (400, "InvalidQueryException"),
    fleet_index.IndexNotReadyError: (400, "IndexNotReadyException"),
    fleet_index.SearchTooBroadError: (400, "InvalidQueryException"),
    thing_types.ThingTypeExistsError: _EXISTS,
    certificates.CertificateExistsError: _EXISTS,
    certificates.CertificateRefusedError: _VALIDATION,
    certificates.CertificateStateError: (406, "CertificateStateException"),
    certificates.CertificateInUseError: _IN_USE,
    certificates.PendingActivationError: (406, "CertificateStateException"),
    certificates.CaInactiveError: (406, "CertificateStateException"),
    ca_certificates.CaExistsError: _EXISTS,
    ca_certificates.CaRefusedError: _VALIDATION,
    ca_certificates.CaStateError: (406, "CertificateStateException"),
    PossessionCodeMismatchError: (400, "RegistrationCodeValidationException"),
    PossessionNotProvenError: _VALIDATION,
    policies.PolicyExistsError: _EXISTS,
    policies.PolicyInUseError: _IN_USE,
    policies.TooManyVersionsError: (409, "VersionsLimitExceededException"),
    authorizers.AuthorizerExistsError: _EXISTS,
    authorizers.AuthorizerInUseError: _IN_USE,
    authorizer_throttle.AuthorizerThrottledError: (429, "LimitExceededException"),
    custom_authorizers.AuthorizerAnswerError: (400, "InvalidResponseException"),
    provisioning_plan_model.RegistrationFailedError: (400, "ResourceRegistrationFailureException"),
    provisioning_plan_model.ResourceConflictsError: (409, "ConflictingResourceUpdateException"),
    thing_registration.ThingTakenError: (409, "ConflictingResourceUpdateException"),
    provisioning_templates.TemplateExistsError: _EXISTS,
    provisioning_templates.TemplateInUseError: _IN_USE,
    provisioning_templates.TooManyTemplateVersionsError: (409, "VersionsLimitExceededException"),
    registration_tasks.TaskOverError: _INVALID,
    s3_buckets.BucketFileError: _INVALID,
    lambda_functions.FunctionFailedError: (400, "InvalidResponseException"),
    role_aliases.RoleAliasExistsError: _EXISTS,
    temporary_credentials.SessionTokenError: (403, "UnrecognizedClientException"),
    temporary_credentials.SessionEndedError: (403, "ExpiredTokenException"),
    errors.InvalidRequestError: _INVALID,
    errors.UnauthenticatedError: _FORBIDDEN,
    errors.ForbiddenError: _FORBIDDEN,
    errors.NotFoundError: _NOT_FOUND,
    errors.ConflictError: (409, "ConflictException"),
    errors.PolicyError: (410, "LimitExceededException"),
    errors.ThrottledError: (429, "ThrottlingException"),
    errors.UnavailableError: (503, "ServiceUnavailableException"),
}

# MQTT 5 reason codes; 3.1.1 closes the connection.
REASONS: Mapping[type[errors.BirthmarkError], int] = {
    model.NameInvalidError: ReasonCode.CLIENT_ID_NOT_VALID,
    mqtt_protocol_limits.ClientIdInvalidError: ReasonCode.CLIENT_ID_NOT_VALID,
    mqtt_protocol_limits.TopicInvalidError: ReasonCode.TOPIC_NAME_INVALID,
    mqtt_protocol_limits.ReservedTopicError: ReasonCode.TOPIC_NAME_INVALID,
    mqtt_protocol_limits.QosNotServedError: ReasonCode.QOS_NOT_SUPPORTED,
    mqtt_protocol_limits.PayloadTooLargeError: ReasonCode.PACKET_TOO_LARGE,
    mqtt_protocol_limits.TooManyFiltersError: ReasonCode.QUOTA_EXCEEDED,
    TooManySessionsError: ReasonCode.QUOTA_EXCEEDED,
    SessionShareUsedError: ReasonCode.QUOTA_EXCEEDED,
    SessionTakenError: ReasonCode.SERVER_UNAVAILABLE,
    RetainedFullError: ReasonCode.QUOTA_EXCEEDED,
    RetainedShareUsedError: ReasonCode.QUOTA_EXCEEDED,
}


def http_error(error: errors.BirthmarkError) -> tuple[int, str]:
    """Return the HTTP status and exception name of the error's nearest listed base class."""
    return next(HTTP[kind] for kind in type(error).__mro__ if kind in HTTP)


def shadow_rejection(error: errors.BirthmarkError) -> tuple[int, str]:
    """Return code and message for a shadow's `rejected` topic."""
    status, _ = http_error(error)
    return (500, "Internal service failure") if status == 503 else (status, str(error))  # noqa: PLR2004 - unavailable


_JOBS_TOLD: Mapping[type[errors.BirthmarkError], str] = {
    job_executions.ExecutionStateError: "InvalidStateTransition",
    StatusNotForDevicesError: "InvalidStateTransition",
    job_executions.ExecutionVersionError: "VersionMismatch",
    job_executions.ExecutionOverError: "TerminalStateReached",
    errors.NotFoundError: "ResourceNotFound",
    errors.ThrottledError: "RequestThrottled",
    errors.ConflictError: "RequestThrottled",
    errors.UnavailableError: "InternalError",
    errors.BirthmarkError: "InvalidRequest",
}


def job_rejection(error: errors.BirthmarkError) -> Mapping[str, object]:
    """Return the payload for the `rejected` topic of a thing's jobs; repeated write conflicts are temporary."""
    code = next(_JOBS_TOLD[kind] for kind in type(error).__mro__ if kind in _JOBS_TOLD)
    if isinstance(error, JobRequestError) and not error.is_json:
        code = "InvalidJson"
    return {"code": code, "message": "Internal service failure" if code == "InternalError" else str(error)}


_TOLD: Mapping[type[errors.BirthmarkError], str] = {
    fleet_provisioning.OwnershipTokenError: "InvalidCertificateOwnershipToken",
    fleet_provisioning.HookRefusedError: "AccessDenied",
}


def provisioning_rejection(error: errors.BirthmarkError) -> Mapping[str, object]:
    """Return the payload for a provisioning service's `rejected` topic."""
    status, name = http_error(error)
    code = _TOLD.get(type(error), name.removesuffix("Exception"))
    return {"statusCode": status, "errorCode": code, "errorMessage": str(error)}


def reason_of(error: errors.BirthmarkError) -> int:
    """Return the MQTT 5 reason code of an error."""
    return mqtt_service_interface.reason_of(error, REASONS)


def suback_reason_of(error: errors.BirthmarkError) -> int:
    """Return the MQTT 5 reason code of a refused subscription."""
    code = reason_of(error)
    return ReasonCode.TOPIC_FILTER_INVALID if code == ReasonCode.TOPIC_NAME_INVALID else code
