"""What the broker refuses."""

from birthmark.errors import ChangedMeanwhileError, ConflictError, PolicyError, ThrottledError


class TooManySessionsError(ThrottledError):
    """Too many stored sessions."""

    code = "awsiot.too_many_sessions"
    cause = "{limit} clients with a stored session are connected; there may be no more."
    fix = (
        "Connect with a clean session where nothing has to wait for the client. If all of them are needed, make room "
        "in the server's configuration file, above its tables: `aws.max_sessions = {value}`"
    )
    limit: str
    value: str


class SessionShareUsedError(ThrottledError):
    """One principal has as many stored sessions as are one's share."""

    code = "broker.session_share_used"
    message = "Too many stored sessions by one certificate or key"
    cause = "The same certificate or access key has {share} stored sessions already; it may have no more."
    fix = (
        "Give each device a certificate of its own, or connect with a clean session. If one really needs so many, make "
        "room in the server's configuration file, above its tables: `{setting} = {value}`"
    )
    setting: str
    share: str
    value: str


class SessionTakenError(ChangedMeanwhileError):
    """Another connection has the session by now."""

    code = "broker.session_taken"
    message = "Another connection of '{client}' came meanwhile, and has its session"
    cause = "While {client} connected, another connection by the same name did, too; the later one has the session."
    fix = (
        "Connect again, if only one program does so by this name: each device needs a name of its own. What came by it "
        "lately: `birthmark why {client}`"
    )
    for_a_person = ""
    client: str


class InboxFullError(PolicyError):
    """Too many messages wait for the device."""

    code = "iothub.inbox_full"
    message = "{limit} messages wait for {device_id} already"
    cause = "{limit} messages wait for the device {device_id}; there may be no more."
    fix = "Let the device connect and take them, or drop them all: `birthmark hub c2d {device_id} --purge`"
    device_id: str
    limit: int


class LockLostError(ConflictError):
    """The lock is not this letter's any more."""

    code = "iothub.lock_lost"
    message = "The lock {lock} is not known, or has run out"
    cause = "A message was to be settled by the lock {lock}, which is not known or has run out."
    fix = (
        "Receive it again: it waits until somebody settles it within the minute, ten times at most. What the service "
        "is told: `birthmark hub feedback`"
    )
    lock: str


class RetainedFullError(ConflictError):
    """Too many retained messages."""

    code = "broker.retained_full"
    cause = "{limit} topics have a retained message; {topic} would be one more."
    fix = (
        "Delete those that nobody needs, by an empty retained message to their topics. If all of them are needed, make "
        "room in the server's configuration file, above its tables: `aws.max_retained = {value}`"
    )
    limit: int
    value: int
    topic: str


class RetainedShareUsedError(ConflictError):
    """One principal has as many retained messages as are one's share."""

    code = "broker.retained_share_used"
    cause = (
        "The same certificate or access key keeps retained messages of {share} topics already, a fourth of what there "
        "may be in all; {topic} would be one more."
    )
    fix = (
        "Delete those that nobody needs, by an empty retained message to their topics. If one really needs so many, "
        "make room in the server's configuration file, above its tables: `aws.max_retained = {value}`"
    )
    share: int
    value: int
    topic: str
