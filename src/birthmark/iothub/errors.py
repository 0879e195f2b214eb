"""Domain errors as IoT Hub shows them: HTTP status with Azure's error name, and CONNACK codes (facts: REST reference).

CONNACK 5 ends a Python device's session for good, so it is given only for what will not pass by itself; for anything
temporary it is 3, which the SDKs retry.
"""

from collections.abc import Mapping

from birthmark import errors
from birthmark.broker.errors import InboxFullError, LockLostError, SessionTakenError
from birthmark.iothub import model, wire
from birthmark.iothub.rules import (
    authentication,
    c2d,
    credentials,
    digital,
    messages,
    methods,
    provisioning,
    tiers,
    twins,
    wills,
)
from birthmark.iothub.rules import queries as rules_of_queries
from birthmark.iothub.rules.routes import changing
from birthmark.iothub.service import authorities, finding, hubs, modules, queries, registry, routes
from birthmark.mqtt.reasons import ReasonCode
from birthmark.pki.csr import CsrRefusedError

HTTP: Mapping[type[errors.BirthmarkError], tuple[int, str, int]] = {
    hubs.UnknownHubError: (404, "NotFound", 404000),
    registry.UnknownDeviceError: (404, "DeviceNotFound", 404001),
    hubs.HubExistsError: (409, "IotHubAlreadyExists", 409000),
    registry.DeviceExistsError: (409, "DeviceAlreadyExists", 409001),
    registry.EtagMismatchError: (412, "PreconditionFailed", 412001),
    authentication.CommonNameError: (401, "IotHubUnauthorizedAccess", 401002),
    authentication.CaNotTrustedError: (401, "IotHubUnauthorizedAccess", 401002),
    authentication.CaUnverifiedError: (401, "IotHubUnauthorizedAccess", 401002),
    authentication.DevicesOwnCaError: (401, "IotHubUnauthorizedAccess", 401002),
    authorities.UnknownCaError: (404, "NotFound", 404000),
    authorities.CaExistsError: (409, "Conflict", 409000),
    authorities.CaNotACaError: (400, "ArgumentInvalid", 400004),
    authorities.NoCaCodeError: (409, "Conflict", 409000),
    modules.UnknownModuleError: (404, "ModuleNotFound", 404010),
    modules.ModuleExistsError: (409, "ModuleAlreadyExistsOnDevice", 409301),
    modules.ModuleEtagError: (412, "PreconditionFailed", 412001),
    modules.TooManyModulesError: (403, "TooManyModulesOnDevice", 403007),
    authentication.PolicyKeyError: (401, "IotHubUnauthorizedAccess", 401002),
    model.DeviceIdInvalidError: (400, "ArgumentInvalid", 400004),
    wire.UserNameError: (400, "ArgumentInvalid", 400004),
    wire.BodyInvalidError: (400, "ArgumentInvalid", 400004),
    wire.PropertyBagError: (400, "ArgumentInvalid", 400004),
    authentication.ClientIdError: (400, "ArgumentInvalid", 400004),
    authentication.DeviceDisabledError: (403, "DeviceDisabled", 403000),
    authentication.ThumbprintMismatchError: (401, "IotHubUnauthorizedAccess", 401002),
    authentication.NoCredentialsError: (401, "IotHubUnauthorizedAccess", 401002),
    credentials.OtherDeviceError: (403, "Forbidden", 403000),
    credentials.NoCertificateError: (412, "CredentialManagementPreconditionFailed", 412005),
    credentials.NoCredentialPolicyError: (412, "CredentialManagementPreconditionFailed", 412005),
    credentials.CredentialNameError: (400, "CredentialOperationFailed", 400040),
    credentials.CredentialBusyError: (409, "CredentialOperationActive", 409005),
    credentials.CredentialReplacedError: (409, "CredentialOperationPending", 409004),
    CsrRefusedError: (400, "CredentialOperationFailed", 400040),
    provisioning.DeviceHeldError: (403, "Forbidden", 403000),
    messages.TopicNotServedError: (400, "InvalidOperation", 400003),
    messages.PathNotServedError: (501, "NotImplemented", 501001),
    messages.QosNotServedError: (400, "InvalidOperation", 400003),
    wills.WillInvalidError: (400, "ArgumentInvalid", 400004),
    twins.TwinInvalidError: (400, "ArgumentInvalid", 400004),
    digital.DigitalTwinPatchError: (400, "ArgumentInvalid", 400004),
    twins.TwinVersionError: (412, "PreconditionFailed", 412001),
    methods.MethodInvalidError: (400, "ArgumentInvalid", 400004),
    methods.DeviceNotOnlineError: (404, "DeviceNotOnline", 404103),
    methods.MethodTimeoutError: (504, "GatewayTimeout", 504101),
    methods.MethodAnswerInvalidError: (502, "InvalidResponseWhileProxying", 502101),
    c2d.C2dInvalidError: (400, "ArgumentInvalid", 400004),
    rules_of_queries.HubQueryInvalidError: (400, "ArgumentInvalid", 400004),
    rules_of_queries.CollectionNotServedError: (400, "ArgumentInvalid", 400004),
    finding.QueryTooBroadError: (400, "ArgumentInvalid", 400004),
    queries.QueryMarkerError: (400, "ArgumentInvalid", 400004),
    finding.IndexBehindError: (503, "ServiceUnavailable", 503001),
    InboxFullError: (403, "DeviceMaximumQueueDepthExceeded", 403004),
    LockLostError: (412, "DeviceMessageLockLost", 412002),
    messages.BatchInvalidError: (400, "ArgumentInvalid", 400004),
    messages.MessageTooLargeError: (413, "MessageTooLarge", 413001),
    tiers.TierInvalidError: (400, "ArgumentInvalid", 400004),
    modules.ModulesThrottledError: (429, "ThrottlingException", 429001),
    tiers.TierThrottledError: (429, "ThrottlingException", 429001),
    tiers.TierQuotaError: (403, "IotHubQuotaExceeded", 403002),
    tiers.TooManyDevicesError: (413, "TooManyDevices", 413002),
    changing.RouteInvalidError: (400, "ArgumentInvalid", 400004),
    changing.RouteConditionError: (400, "ArgumentInvalid", 400004),
    changing.RouteSourceError: (400, "ArgumentInvalid", 400004),
    changing.EndpointInvalidError: (400, "ArgumentInvalid", 400004),
    changing.RouteNameTakenError: (409, "Conflict", 409000),
    changing.UnknownRouteError: (404, "NotFound", 404000),
    changing.UnknownEndpointError: (404, "NotFound", 404000),
    changing.EndpointInUseError: (409, "Conflict", 409000),
    changing.TooManyRoutesError: (403, "Forbidden", 403000),
    routes.RouteFailedError: (403, "Forbidden", 403000),
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
    """Return status, Azure's error name and number of the nearest listed ancestor."""
    return next(HTTP[kind] for kind in type(error).__mro__ if kind in HTTP)


def connack_reason(error: errors.BirthmarkError) -> int:
    """Return the reason for a refused CONNECT: return code 3, 2 or 5."""
    if isinstance(error, errors.UnavailableError | errors.ThrottledError | SessionTakenError):
        return ReasonCode.SERVER_UNAVAILABLE
    if isinstance(error, model.DeviceIdInvalidError | authentication.ClientIdError):
        return ReasonCode.CLIENT_ID_NOT_VALID
    return ReasonCode.NOT_AUTHORIZED
