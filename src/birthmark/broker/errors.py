"""Errors of the broker."""

from birthmark.errors import ChangedMeanwhileError, ConflictError, PolicyError, ThrottledError


class TooManySessionsError(ThrottledError):
    """Too many stored sessions."""

    code = "awsiot.too_many_sessions"
    cause = "{limit} clients with a stored session are connected, the maximum."
    fix = (
        "Connect with a clean session if no messages have to be queued for the client. If all sessions "
        "are needed, increase the limit in the server's configuration file, above its tables: "
        "`aws.max_sessions = {value}`"
    )
    limit: str
    value: str


class SessionShareUsedError(ThrottledError):
    """The principal has the maximum number of stored sessions."""

    code = "broker.session_share_used"
    message = "Too many stored sessions for one certificate or key"
    cause = "The same certificate or access key already has {share} stored sessions, the maximum."
    fix = (
        "Use a separate certificate for each device, or connect with a clean session. If one client needs"
        " more sessions, increase the limit in the server's configuration file, above its tables: "
        "`{setting} = {value}`"
    )
    setting: str
    share: str
    value: str


class SessionTakenError(ChangedMeanwhileError):
    """Another connection took over the session."""

    code = "broker.session_taken"
    message = "Another connection of '{client}' took over the session"
    cause = "While {client} connected, a later connection with the same name took over the session."
    fix = (
        "Connect again if only one program uses this name; each device needs its own name. To list its "
        "latest refusals: `birthmark why {client}`"
    )
    for_a_person = ""
    client: str


class DeviceQueueFullError(PolicyError):
    """Too many messages are queued for the device."""

    code = "iothub.inbox_full"
    message = "{limit} messages are already queued for {device_id}"
    cause = "{limit} messages are queued for the device {device_id}, the maximum."
    fix = "Connect the device to receive them, or delete them all: `birthmark hub c2d {device_id} --purge`"
    device_id: str
    limit: int


class LockLostError(ConflictError):
    """The message's lock was lost."""

    code = "iothub.lock_lost"
    message = "The lock {lock} is unknown or has expired"
    cause = "The lock {lock} of a message is unknown or has expired."
    fix = (
        "Receive the message again and settle it within one minute, at most ten times. To show the "
        "service's feedback: `birthmark hub feedback`"
    )
    lock: str


class RetainedFullError(ConflictError):
    """Too many retained messages."""

    code = "broker.retained_full"
    cause = "{limit} topics have a retained message, the maximum; {topic} would be another."
    fix = (
        "Delete unused ones with an empty retained message to their topics. If all are needed, increase "
        "the limit in the server's configuration file, above its tables: `aws.max_retained = {value}`"
    )
    limit: int
    value: int
    topic: str


class RetainedShareUsedError(ConflictError):
    """The principal has the maximum number of retained messages."""

    code = "broker.retained_share_used"
    cause = (
        "The same certificate or access key already has retained messages of {share} topics, a fourth of "
        "the total limit; {topic} would be another."
    )
    fix = (
        "Delete unused ones with an empty retained message to their topics. If one client needs more, "
        "increase the limit in the server's configuration file, above its tables: `aws.max_retained = "
        "{value}`"
    )
    share: int
    value: int
    topic: str
