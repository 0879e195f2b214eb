"""Errors of the broker."""

from birthmark.errors import ChangedMeanwhileError, ConflictError, PolicyError, ThrottledError


class TooManySessionsError(ThrottledError):
    """Too many stored sessions."""

    code = "awsiot.too_many_sessions"
    cause = "The server has reached its limit of {limit} connected clients with persistent sessions."
    fix = (
        "If the client does not need queued messages, connect with a clean session. If you need all sessions, "
        "set a higher limit in the server's configuration file, before the first table: `aws.max_sessions = {value}`"
    )
    limit: str
    value: str


class SessionShareUsedError(ThrottledError):
    """The principal has the maximum number of stored sessions."""

    code = "broker.session_share_used"
    message = "Too many stored sessions for one certificate or key"
    cause = "The same certificate or access key already has {share} stored sessions, the maximum."
    fix = (
        "Use a separate certificate for each device, or connect with a clean session. If one client needs more "
        "sessions, set a higher limit in the server's configuration file, before the first table: `{setting} = {value}`"
    )
    setting: str
    share: str
    value: str


class SessionTakenError(ChangedMeanwhileError):
    """Another connection took over the session."""

    code = "broker.session_taken"
    message = "Another connection of '{client}' took over the session"
    cause = "While {client} was connecting, a later connection with the same name took over the session."
    fix = (
        "If only one program uses this name, connect again. Each device needs its own name. To list the latest "
        "refusals of this name: `birthmark why {client}`"
    )
    for_a_person = ""
    client: str


class DeviceQueueFullError(PolicyError):
    """Too many messages are queued for the device."""

    code = "iothub.inbox_full"
    message = "{limit} messages are already queued for {device_id}"
    cause = "The queue of the device {device_id} contains {limit} messages, the maximum."
    fix = (
        "Connect the device to receive the queued messages, or delete all of them: `birthmark hub c2d {device_id} "
        "--purge`"
    )
    device_id: str
    limit: int


class LockLostError(ConflictError):
    """The message's lock was lost."""

    code = "iothub.lock_lost"
    message = "The lock {lock} is unknown or has expired"
    cause = "The lock {lock} of a message is unknown or has expired."
    fix = (
        "Receive the message again, and settle it within one minute. You can receive a message at most ten times. To "
        "show the service's feedback: `birthmark hub feedback`"
    )
    lock: str


class RetainedFullError(ConflictError):
    """Too many retained messages."""

    code = "broker.retained_full"
    cause = "The server already has retained messages for {limit} topics, the maximum, and cannot add {topic}."
    fix = (
        "To delete an unused retained message, publish an empty retained message to its topic. If you need all "
        "retained messages, set a higher limit in the server's configuration file, above all tables: "
        "`aws.max_retained = {value}`"
    )
    limit: int
    value: int
    topic: str


class RetainedShareUsedError(ConflictError):
    """The principal has the maximum number of retained messages."""

    code = "broker.retained_share_used"
    cause = (
        "The same certificate or access key already has retained messages for {share} topics, a quarter of the total "
        "limit, and cannot add {topic}."
    )
    fix = (
        "To delete an unused retained message, publish an empty retained message to its topic. If one client needs "
        "more retained messages, set a higher limit in the server's configuration file, above all tables: "
        "`aws.max_retained = {value}`"
    )
    share: int
    value: int
    topic: str
