"""AMQP conditions of refusals, by which the SDKs decide whether to retry (Azure SDKs, error tables)."""

from collections.abc import Mapping
from typing import Any

from birthmark.amqp.errors import AmqpCondition, AmqpError, AmqpErrorScope
from birthmark.amqp.values import Symbol
from birthmark.broker.errors import DeviceQueueFullError, LockLostError
from birthmark.errors import (
    BirthmarkError,
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    PolicyError,
    ThrottledError,
    UnauthenticatedError,
    UnavailableError,
)
from birthmark.iam.missing_right_errors import format_refusal
from birthmark.iothub.rules.tier_throttles_and_quotas import TierQuotaError
from birthmark.iothub.service.exclusive_readers import ExclusiveReaderError

_TRACKING_ID = Symbol("com.microsoft:tracking-id")
CONDITIONS: Mapping[type[BirthmarkError], str] = {
    ExclusiveReaderError: AmqpCondition.LINK_STOLEN,
    LockLostError: "com.microsoft:message-lock-lost",
    DeviceQueueFullError: AmqpCondition.RESOURCE_LIMIT_EXCEEDED,
    TierQuotaError: AmqpCondition.RESOURCE_LIMIT_EXCEEDED,
    ThrottledError: "com.microsoft:device-container-throttled",
    UnauthenticatedError: AmqpCondition.UNAUTHORIZED_ACCESS,
    ForbiddenError: AmqpCondition.UNAUTHORIZED_ACCESS,
    NotFoundError: AmqpCondition.NOT_FOUND,
    PolicyError: AmqpCondition.RESOURCE_LIMIT_EXCEEDED,
    ConflictError: AmqpCondition.PRECONDITION_FAILED,
    UnavailableError: "com.microsoft:timeout",
    InvalidRequestError: "com.microsoft:argument-error",
}


def condition_of(error: BirthmarkError) -> str:
    """Return the condition of the error's nearest listed base class."""
    return next((CONDITIONS[kind] for kind in type(error).__mro__ if kind in CONDITIONS), AmqpCondition.INTERNAL_ERROR)


def amqp_error(error: BirthmarkError, tracking_id: str, scope: AmqpErrorScope = AmqpErrorScope.LINK) -> AmqpError:
    """Return a refusal for the peer, with the ID under which `birthmark why` explains it."""
    info: dict[Any, Any] = {_TRACKING_ID: tracking_id} if tracking_id else {}
    condition, text = condition_of(error), format_refusal(error)
    if condition == AmqpCondition.NOT_FOUND and scope is AmqpErrorScope.LINK:  # Node looks for this sentence
        text = f"The messaging entity of this link could not be found. {text}"
    return AmqpError(condition, text, scope=scope, info=info)
