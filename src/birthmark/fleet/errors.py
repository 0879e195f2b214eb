"""Errors between an operator and a cloud."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from birthmark import errors
from birthmark.fleet.enrollment_target import Change, record_name
from birthmark.msgspec_type_preparation import prepare_type
from birthmark.untrusted_json_and_text import reason_of

_MOST_CAUSES = 10


class ProfileError(errors.InvalidRequestError):
    """The profile does not exist or is incomplete."""

    code = "fleet.profile_invalid"
    message = "The profile is invalid"
    cause = "The profile {profile} cannot be used: {detail}."
    fix = "{mend}{instead}A named profile is a table in ~/.config/birthmark/profiles.toml{there}."
    detail: str
    mend: str = ""
    """Fix, if known."""
    profile: str
    instead: str = "Use the local server: `birthmark device ls --profile local`. "
    """The same command for the local server; empty for a command that removes something."""
    there: str = ""
    """Named profiles that exist."""


class SdkMissingError(errors.UnavailableError):
    """The SDK is missing."""

    code = "fleet.sdk_missing"
    cause = "The Python package {package} is not installed."
    fix = "Install Birthmark with its {extra} extra: pip install 'birthmark[{extra}]'."
    for_a_person = "the package source depends on the installation"
    extra: str = "fleet"
    package: str


def network_reason(error: BaseException) -> str:
    """Return the operating system's reason below a library's errors; the library's message if there is none."""
    found: BaseException | None = error
    by = ""
    for _ in range(_MOST_CAUSES):
        if found is None:
            break
        if type(found).__name__.startswith("Proxy"):  # each library's own
            by = "the proxy: "
        if getattr(found, "reason", None) == "NO_CERTIFICATE_OR_CRL_FOUND":  # of OpenSSL
            return "the CA certificate file contains no certificates: check REQUESTS_CA_BUNDLE and AWS_CA_BUNDLE"
        if said := getattr(found, "verify_message", ""):
            return f"{by}{said}".lower()
        if isinstance(found, TimeoutError) or (isinstance(found, OSError) and found.strerror):
            return by + reason_of(found)
        told = getattr(found, "reason", None) or getattr(found, "inner_exception", None)
        found = told if isinstance(told, BaseException) else found.__cause__ or found.__context__
    return reason_of(error).rstrip(".")


class TargetUnreachableError(errors.UnavailableError):
    """The target is not reachable."""

    code = "fleet.target_unreachable"
    cause = "{target} is not reachable: {reason}."
    fix = "Check the network and the endpoint. To use a Birthmark server that runs on this machine: `{command}`"
    command: str = "birthmark device ls --profile local"
    reason: object
    target: str


class TargetAnswerError(TargetUnreachableError):
    """The target's response is not valid."""

    code = "fleet.answer_unreadable"
    cause = "The response of {target} is not valid: {reason}."
    fix = (
        "Check that the connection string's host is the service itself and that no proxy responds in its place. Then "
        "retry. To use a Birthmark server that runs on this machine: `{command}`"
    )


class RecordUnreadableError(errors.InvalidRequestError):
    """One enrollment cannot be read."""

    code = "fleet.record_unreadable"
    message = "The enrollment {name} cannot be read"
    cause = "The enrollment {name} at {target} has an unreadable member: {reason}."
    fix = "Correct the enrollment with the client that wrote it, or delete it in the service. Then try again."
    name: str
    reason: str
    target: str


class NotTakenBackError(errors.ConflictError):
    """The record has changed since."""

    code = "fleet.not_taken_back"
    message = "The change to {device} was not undone: {detail}"
    cause = "The change to {device} at {target} was not undone: {detail}."
    fix = (
        "To list the enrollments: `birthmark device ls{options}`. To remove {device} anyway: `birthmark device rm "
        "{device}{options}`"
    )
    detail: str
    device: str
    options: str = ""
    target: str


class TargetRefusedError(errors.InvalidRequestError):
    """The cloud rejected the request."""

    code = "fleet.target_refused"
    message = "The target rejected the request: {reason}"
    cause = "{target} rejected the request: {reason}."
    fix = (
        "If the target is a Birthmark server, show the cause and the fix: `birthmark why`. Otherwise, see the message."
    )
    reason: str
    target: str


class CredentialsRefusedError(errors.UnauthenticatedError):
    """The target rejected the credentials."""

    code = "fleet.credentials_refused"
    cause = "{target} rejected the credentials: {reason}."
    fix = (
        "To use the Birthmark server on this machine: `{command}`. Otherwise, check the connection string or access "
        "key of the profile, and the clock."
    )
    command: str = "birthmark device ls --profile local"
    reason: str
    target: str


class TargetThrottledError(errors.ThrottledError):
    """The target throttled the requests for minutes."""

    code = "fleet.target_throttled"
    cause = "{target} throttles the requests: {reason}."
    fix = "Completed changes are kept. To continue, run the command again when the account is less busy: `{again}`"
    again: str = ""
    reason: str
    target: str


class NotAllowedError(errors.ForbiddenError):
    """The credentials do not permit the operation."""

    code = "fleet.not_allowed"
    message = "{target} does not allow {action}"
    cause = "{target} accepts these credentials but does not permit {action}: {reason}."
    fix = (
        "Grant the permission. To list all required permissions: `birthmark device rights enroll{options}`. For "
        "other operations, replace enroll with undo, follow, move, remove, or list."
    )
    action: str
    options: str = ""
    reason: str
    target: str


class RoleMissingError(errors.ForbiddenError):
    """The signed-in user's roles at the Birthmark server do not suffice."""

    code = "fleet.role_missing"
    cause = "{target} rejected the signed-in user: {reason}."
    fix = "{advice}"
    for_a_person = "an administrator has to grant the access"
    advice: str
    reason: str
    target: str


class DifferentRecordError(errors.ConflictError):
    """The device is enrolled with another certificate."""

    code = "fleet.different_record"
    message = "{device} is enrolled with different settings"
    cause = "{device} is enrolled at {target} with {present}, not with {wanted}."
    fix = "To update the enrollment: `{again} --update`"
    again: str = ""
    device: str
    present: str
    target: str
    wanted: str


def different(name: str, target: str, difference: Sequence[Change]) -> DifferentRecordError:
    """Return the refusal for an existing record that differs from the request."""
    present = ", ".join(f"{change.what} {change.present}" for change in difference)
    wanted = ", ".join(f"{change.what} {change.wanted}" for change in difference)
    return DifferentRecordError(device=name, target=target, present=present, wanted=wanted)


class NoSuchRecordError(errors.NotFoundError):
    """The enrollment does not exist."""

    code = "fleet.no_such_record"
    cause = "{target} has no enrollment {device}."
    fix = "List enrollments: `birthmark device ls{options}`. For a group, use --group."
    device: str
    options: str = ""
    target: str
    reason: str = ""


class NotAtHubError(errors.NotFoundError):
    """The hub cannot find or reach the device or module."""

    code = "fleet.not_at_hub"
    message = "{target} cannot find or reach {name}"
    cause = "{target} reports for {name}: {reason}"
    fix = "List devices and their connections: `birthmark hub device ls --profile {profile}`."
    name: str
    profile: str
    reason: str
    target: str


class ReferenceMissingError(errors.NotFoundError):
    """A referenced object does not exist."""

    code = "fleet.reference_missing"
    cause = "The target {target} does not have the referenced object: {reason}."
    fix = "First create the object at the target{how}. Then run the command again."
    how: str
    reason: str
    target: str


_ROLE = re.compile(r"(This (?:needs the|token has no) right to \S+ at \S+?)\. ([^`]{1,200}`[^`]{1,300}`)")


def role_missing(target: str, reason: str) -> RoleMissingError | None:
    """Return the error for a Birthmark server's refusal of a user without permission; None for any other."""
    told = _ROLE.search(reason)
    return None if told is None else RoleMissingError(target=target, reason=told[1], advice=told[2])


def refusal(
    target: str, reason: str, *, is_missing: bool, is_unknown: bool, name: str, how: str
) -> errors.BirthmarkError:
    """Return the error for a target's refusal: `name` is the requested object, `how` the advice for creating it.

    `is_missing` is set if the target has no such object, `is_unknown` if it does not know the caller.
    """
    if (missing := role_missing(target, reason)) is not None:
        return missing
    if is_missing and name:
        return NoSuchRecordError(device=name, reason=reason, target=target)
    if is_missing:
        return ReferenceMissingError(reason=reason, how=how, target=target)
    kind = CredentialsRefusedError if is_unknown else TargetRefusedError
    return kind(reason=reason, target=target)


Way = TypeVar("Way", bound=msgspec.Struct)


def parse_rollback_entry(values: Mapping[str, Any], kind: type[Way], device: str, target: str) -> Way:
    """Return the rollback entry of a device in the journal. Raise `NotTakenBackError` if a run did not write it."""
    try:
        return msgspec.convert(values, prepare_type(kind))
    except msgspec.ValidationError as error:
        detail = "its line in the journal is not as a run wrote it"
        raise NotTakenBackError(device=record_name(device, values), target=target, detail=detail) from error
