"""What the broker refuses."""

from birthmark.errors import ConflictError, ThrottledError


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
