"""Map domain errors to IoT Hub's HTTP status, error name and CONNACK code (REST reference).

CONNACK 5 ends a Python device's session permanently, so it is returned only for permanent errors. Temporary errors
return 3, which the SDKs retry.
"""

from collections.abc import Mapping

from birthmark import errors
from birthmark.broker.errors import DeviceQueueFullError, LockLostError, SessionTakenError
from birthmark.iothub import model
from birthmark.iothub.rules import (
    authentication,
    certificate_renewal,
    configurations,
    direct_methods,
    publish_refusals,
    scheduled_jobs,
    tier_throttles_and_quotas,
    twins,
)
from birthmark.iothub.service import hubs_and_authorization, modules, registry, registry_jobs
from birthmark.iothub.wire import registry_jobs as registry_job_wire
from birthmark.mqtt.reason_codes import ReasonCode
from birthmark.pki.csr import CsrRefusedError

HTTP: Mapping[type[errors.BirthmarkError], tuple[int, str, int]] = {
    registry.UnknownDeviceError: (404, "DeviceNotFound", 404001),
    hubs_and_authorization.HubExistsError: (409, "IotHubAlreadyExists", 409000),
    registry.DeviceExistsError: (409, "DeviceAlreadyExists", 409001),
    registry.EtagMismatchError: (412, "PreconditionFailed", 412001),
    modules.UnknownModuleError: (404, "ModuleNotFound", 404010),
    modules.ModuleExistsError: (409, "ModuleAlreadyExistsOnDevice", 409301),
    modules.ModuleEtagError: (412, "PreconditionFailed", 412001),
    modules.TooManyModulesError: (403, "TooManyModulesOnDevice", 403007),
    configurations.UnknownConfigurationError: (404, "ConfigurationNotFound", 404011),
    configurations.ConfigurationExistsError: (409, "ConfigurationAlreadyExists", 409302),
    configurations.ConfigurationEtagError: (412, "PreconditionFailed", 412001),
    configurations.TooManyConfigurationsError: (403, "ConfigurationCountLimitExceeded", 403008),
    authentication.DeviceDisabledError: (403, "DeviceDisabled", 403000),
    certificate_renewal.NoCertificateError: (412, "CredentialManagementPreconditionFailed", 412005),
    certificate_renewal.NoCredentialPolicyError: (412, "CredentialManagementPreconditionFailed", 412005),
    certificate_renewal.CredentialNameError: (400, "CredentialOperationFailed", 400040),
    certificate_renewal.CredentialBusyError: (409, "CredentialOperationActive", 409005),
    certificate_renewal.CredentialReplacedError: (409, "CredentialOperationPending", 409004),
    CsrRefusedError: (400, "CredentialOperationFailed", 400040),
    publish_refusals.TopicNotServedError: (400, "InvalidOperation", 400003),
    publish_refusals.PathNotServedError: (501, "NotImplemented", 501001),
    publish_refusals.QosNotServedError: (400, "InvalidOperation", 400003),
    twins.TwinVersionError: (412, "PreconditionFailed", 412001),
    direct_methods.DeviceNotOnlineError: (404, "DeviceNotOnline", 404103),
    direct_methods.MethodTimeoutError: (504, "GatewayTimeout", 504101),
    direct_methods.MethodAnswerInvalidError: (502, "InvalidResponseWhileProxying", 502101),
    scheduled_jobs.HubJobExistsError: (409, "JobAlreadyExists", 409003),
    scheduled_jobs.UnknownHubJobError: (404, "JobNotFound", 404002),
    scheduled_jobs.TooManyHubJobsError: (403, "JobQuotaExceeded", 403003),
    DeviceQueueFullError: (403, "DeviceMaximumQueueDepthExceeded", 403004),
    LockLostError: (412, "DeviceMessageLockLost", 412002),
    registry_job_wire.ContainerUriError: (400, "BlobContainerValidationError", 400008),
    registry_jobs.RegistryJobRunningError: (403, "JobQuotaExceeded", 403003),
    registry_jobs.UnknownRegistryJobError: (404, "JobNotFound", 404002),
    publish_refusals.MessageTooLargeError: (413, "MessageTooLarge", 413001),
    tier_throttles_and_quotas.TierQuotaError: (403, "IotHubQuotaExceeded", 403002),
    tier_throttles_and_quotas.TooManyDevicesError: (413, "TooManyDevices", 413002),
    errors.InvalidRequestError: (400, "ArgumentInvalid", 400004),
    errors.UnauthenticatedError: (401, "IotHubUnauthorizedAccess", 401002),
    errors.ForbiddenError: (403, "Forbidden", 403000),
    errors.NotFoundError: (404, "NotFound", 404000),
    errors.ConflictError: (409, "Conflict", 409000),
    errors.PolicyError: (403, "Forbidden", 403000),
    errors.ThrottledError: (429, "ThrottlingException", 429001),
    errors.UnavailableError: (503, "ServiceUnavailable", 503001),
}


def http_error(error: errors.BirthmarkError) -> tuple[int, str, int]:
    """Return the HTTP status, Azure error name and number of the error's nearest listed base class."""
    return next(HTTP[kind] for kind in type(error).__mro__ if kind in HTTP)


def connack_reason(error: errors.BirthmarkError) -> int:
    """Return the CONNACK return code for a refused CONNECT: 3, 2 or 5."""
    if isinstance(error, errors.UnavailableError | errors.ThrottledError | SessionTakenError):
        return ReasonCode.SERVER_UNAVAILABLE
    if isinstance(error, model.DeviceIdInvalidError | authentication.ClientIdError):
        return ReasonCode.CLIENT_ID_NOT_VALID
    return ReasonCode.NOT_AUTHORIZED
