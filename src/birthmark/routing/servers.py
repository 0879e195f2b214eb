"""Servers that messages may leave to, as the configuration names them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

PORTS: Mapping[str, int] = {"mqtt": 1883, "mqtts": 8883, "nats": 4222, "tls": 4222}
"""By scheme: MQTT plain and by TLS, NATS plain and by TLS."""


@dataclass(frozen=True, slots=True)
class Server:
    """A NATS server or an MQTT broker. `ca` is the CAs as PEM, None for the system's."""

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    ca: str | None = None
