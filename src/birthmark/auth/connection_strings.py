"""Azure connection strings: `HostName=…;SharedAccessKeyName=…;SharedAccessKey=…`."""

import base64
import re
from dataclasses import dataclass, field

from birthmark.errors import InvalidRequestError

_BROKEN = ": it contains a line break, a space or another invalid character"
_HOST = re.compile("(?<![A-Za-z])HostName=")
_AROUND = " \t\r\n\u00a0\"'\u201c\u201d"


class ConnectionStringError(InvalidRequestError):
    """The text is not a service connection string."""

    code = "azure.connection_string_invalid"
    message = "The connection string lacks {part}"
    cause = "The connection string has no valid {part}{why}."
    fix = (
        "Copy the complete connection string from the portal. To use the Birthmark server on this machine: `{command}`"
    )
    command: str = "birthmark device ls --profile local"
    part: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class ConnectionString:
    """A service's host, policy and key."""

    host: str
    policy: str
    key: bytes = field(repr=False)

    @classmethod
    def of_text(cls, host: str, policy: str, key: str) -> "ConnectionString":
        """Return a connection string with its key in base64."""
        return cls(host, policy, base64.b64decode(key))

    def render(self) -> str:
        """Return the text, which contains the key."""
        key = base64.b64encode(self.key).decode()
        return f"HostName={self.host};SharedAccessKeyName={self.policy};SharedAccessKey={key}"


def render_event_hubs(host: str, policy: str, key: str, entity: str) -> str:
    """Return the connection string of an Event Hubs-compatible endpoint, with a key in base64."""
    return f"Endpoint=sb://{host}/;SharedAccessKeyName={policy};SharedAccessKey={key};EntityPath={entity}"


def parse_connection_string(text: str) -> ConnectionString:
    """Parse a connection string. Raise `ConnectionStringError` naming the missing part."""
    # The file may be handwritten: a variable assignment, or typographic quotation marks.
    begin = _HOST.search(text)
    bare = text[begin.start() if begin else 0 :].strip(_AROUND)
    if len(_HOST.findall(bare)) > 1:
        raise ConnectionStringError(part="HostName", why=": the text contains several connection strings")
    parts = dict(part.split("=", 1) for part in bare.split(";") if "=" in part)
    for name in ("HostName", "SharedAccessKeyName", "SharedAccessKey"):
        if not parts.get(name):
            raise ConnectionStringError(part=name)
        if not (parts[name].isascii() and parts[name].isprintable()) or " " in parts[name]:  # used in a header
            raise ConnectionStringError(part=name, why=_BROKEN)
    try:
        key = base64.b64decode(parts["SharedAccessKey"], validate=True)
    except ValueError as error:
        raise ConnectionStringError(part="SharedAccessKey") from error
    return ConnectionString(parts["HostName"], parts["SharedAccessKeyName"], key)
