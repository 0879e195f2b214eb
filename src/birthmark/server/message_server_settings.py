"""`[servers.NAME]`: NATS and MQTT servers that rules and routes may send to."""

import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

import msgspec

from birthmark.message_routing.delivery_model import PORTS

_SERVER = re.compile(r"[A-Za-z0-9_-]{1,64}")


class ServerTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A NATS server, or an MQTT broker, that rules may send to."""

    url: str
    user: str = ""
    password_file: str | None = None
    ca: str | None = None
    """PEM file of the CAs that issue the function's certificate. Default: the system's CAs."""


def validate_servers(servers: Mapping[str, ServerTable]) -> Iterator[tuple[str, str]]:
    """Yield the problems of the servers that rules may send to."""
    for name, one in servers.items():
        if _SERVER.fullmatch(name) is None:
            yield f"servers.{name[:100]}", "must have a name of 1 to 64 letters, digits, _ and -"
        try:
            parts = urlsplit(one.url)
            is_good = parts.scheme in PORTS and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            is_good = False
        if not is_good or parts.username is not None:
            yield f"servers.{name[:100]}.url", "must be nats://HOST:PORT, tls://HOST:PORT, mqtt:// or mqtts://"
