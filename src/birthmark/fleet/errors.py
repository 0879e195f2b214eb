"""What goes wrong between an operator and a cloud."""

from birthmark.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)


class ProfileError(InvalidRequestError):
    """A profile that is not there or lacks something."""

    code = "fleet.profile_invalid"
    cause = "The profile {profile} cannot be used: {detail}."
    fix = (
        "Use the local server: `{again} --profile local`. A named profile is a table in "
        "~/.config/birthmark/profiles.toml."
    )


class SdkMissingError(UnavailableError):
    """The vendor's SDK is not installed."""

    code = "fleet.sdk_missing"
    cause = "The Python package {package} is not installed."
    fix = "Install Birthmark with its fleet extra: pip install 'birthmark[fleet]'."
    for_a_person = "packages have to be installed from somewhere"


class TargetUnreachableError(UnavailableError):
    """The cloud does not answer."""

    code = "fleet.target_unreachable"
    cause = "{target} does not answer: {reason}."
    fix = 'Check the network and the endpoint. For a Birthmark server, when it runs: `eval "$(birthmark env)"`'


class TargetRefusedError(InvalidRequestError):
    """The cloud answered with a refusal."""

    code = "fleet.target_refused"
    cause = "{target} refused: {reason}."
    fix = "For a Birthmark server, this has the reason and what to do: `birthmark why`. Else see the message."


class CredentialsRefusedError(UnauthenticatedError):
    """The cloud does not take the operator's credentials."""

    code = "fleet.credentials_refused"
    cause = "{target} does not take these credentials: {reason}."
    fix = (
        'For a Birthmark server: `eval "$(birthmark env)"`. Else check the profile\'s connection string or access'
        " key, and the clock."
    )


class DifferentRecordError(ConflictError):
    """The device is on record with another certificate."""

    code = "fleet.different_record"
    cause = "{device} is on record at {target} with {present}, not with {wanted}."
    fix = "If this certificate is the right one: `{again} --update`"


class NoSuchRecordError(NotFoundError):
    """Nothing on record under that name."""

    code = "fleet.no_such_record"
    cause = "{target} has no enrollment {device}."
    fix = "`birthmark enroll list` shows what is on record."


class ReferenceMissingError(NotFoundError):
    """The request names something that the target does not have: a policy, a CA certificate."""

    code = "fleet.reference_missing"
    cause = "{target} does not have what the request names: {reason}."
    fix = "Make it there first{how}. Then run the command again."
