"""Map domain errors to the status and code of the Blob service ("Blob service error codes")."""

from collections.abc import Mapping

from birthmark import errors
from birthmark.blob_storage import rules, service
from birthmark.blob_storage.wire import BlobRequestInvalidError, SasInvalidError

HTTP: Mapping[type[errors.BirthmarkError], tuple[int, str]] = {
    SasInvalidError: (403, "AuthenticationFailed"),
    rules.BlobAccessError: (403, "AuthorizationPermissionMismatch"),
    rules.BlobNotFoundError: (404, "BlobNotFound"),
    rules.ContainerNotFoundError: (404, "ContainerNotFound"),
    rules.ContainerExistsError: (409, "ContainerAlreadyExists"),
    rules.BlobExistsError: (409, "BlobAlreadyExists"),
    rules.ConditionNotMetError: (412, "ConditionNotMet"),
    rules.BlockListInvalidError: (400, "InvalidBlockList"),
    rules.RangeInvalidError: (416, "InvalidRange"),
    service.StorageQuotaError: (403, "AccountQuotaExceeded"),
    service.StorageBusyError: (503, "ServerBusy"),
    errors.InvalidRequestError: (400, "InvalidInput"),
    errors.UnauthenticatedError: (403, "AuthenticationFailed"),
    errors.ForbiddenError: (403, "AuthorizationFailure"),
    errors.NotFoundError: (404, "ResourceNotFound"),
    errors.ConflictError: (409, "Conflict"),
    errors.PolicyError: (403, "AuthorizationFailure"),
    errors.ThrottledError: (503, "ServerBusy"),
    errors.UnavailableError: (503, "ServerBusy"),
}
_DIGESTS = {"Content-MD5": "Md5Mismatch", "x-ms-content-crc64": "Crc64Mismatch"}


def http_error(error: errors.BirthmarkError) -> tuple[int, str]:
    """Return the HTTP status and the storage error code of an error."""
    status, name = next(HTTP[kind] for kind in type(error).__mro__ if kind in HTTP)
    if isinstance(error, BlobRequestInvalidError):
        return status, error.blob_error
    if isinstance(error, service.ContentDigestError):
        return status, _DIGESTS[error.header]
    return status, name
