"""What doctor says: findings, and which of them explains which."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class FindingSeverity(StrEnum):
    """How bad it is. NOTE: nothing is wrong, and it may be meant otherwise. UNKNOWN: it could not be looked at."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    FAULT = "fault"
    UNKNOWN = "unknown"


class Topic(StrEnum):
    """What a finding is about, in the order in which things are looked at."""

    ENVIRONMENT = "environment"
    TRUST = "trust"
    OPENSSL = "openssl"
    BUS = "bus"
    LIBRARY = "library"
    STORE = "store"
    PIN_FILE = "pin file"
    TOKEN = "token"  # noqa: S105 (a topic)
    PIN = "pin"
    KEY = "key"
    IDENTITY = "identity"
    CONFIGURATION = "configuration"
    AGENT = "agent"
    SERVER = "server"
    CLOCK = "clock"
    PROXY = "proxy"
    NETWORK = "network"


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """One thing that was looked at. `command` mends it as it stands; where only a person can, `for_a_person` says why.

    `about` is whom it is about where there may be several (a host, a file): it explains findings about the same alone.
    """

    code: str
    topic: Topic
    severity: FindingSeverity
    seen: str
    cause: str = ""
    command: str = ""
    advice: str = ""
    for_a_person: str = ""
    about: str = ""

    @property
    def fix(self) -> str:
        """What to do, the command in backticks."""
        return ": ".join(part for part in (self.advice, f"`{self.command}`" if self.command else "") if part)


EXPLAINED_BY: Mapping[Topic, frozenset[Topic]] = {
    Topic.TOKEN: frozenset({Topic.LIBRARY, Topic.STORE, Topic.BUS}),
    Topic.PIN: frozenset({Topic.LIBRARY, Topic.STORE, Topic.TOKEN, Topic.PIN_FILE, Topic.BUS}),
    Topic.KEY: frozenset({Topic.LIBRARY, Topic.STORE, Topic.TOKEN, Topic.PIN_FILE, Topic.PIN, Topic.BUS}),
    Topic.AGENT: frozenset(
        {Topic.CONFIGURATION, Topic.LIBRARY, Topic.STORE, Topic.TOKEN, Topic.PIN_FILE, Topic.PIN, Topic.KEY}
    ),
    Topic.NETWORK: frozenset({Topic.ENVIRONMENT, Topic.TRUST, Topic.SERVER, Topic.PROXY}),
}
"""A fault of one of these topics keeps back what is about the topic: it would be its consequence."""


def told(findings: Iterable[DoctorFinding]) -> list[DoctorFinding]:
    """Return the findings without the consequences of others and without what stands twice."""
    every = list(dict.fromkeys(findings))
    faults = [one for one in every if one.severity is FindingSeverity.FAULT]

    def is_explained(one: DoctorFinding) -> bool:
        causes = EXPLAINED_BY.get(one.topic, frozenset())
        return one.severity is not FindingSeverity.OK and any(
            other.topic in causes and other is not one and _is_same(one.about, other.about) for other in faults
        )

    return [one for one in every if not is_explained(one)]


def _is_same(about: str, other: str) -> bool:
    return not about or not other or about == other
