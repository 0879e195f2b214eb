"""Findings of the doctor, and which findings explain others."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class FindingSeverity(StrEnum):
    """Severity of a finding. NOTE: valid and possibly intended. UNKNOWN: could not be checked."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    FAULT = "fault"
    UNKNOWN = "unknown"


class Topic(StrEnum):
    """Topic of a finding, in the order of inspection."""

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
    """One check result. `command` fixes it as printed; if only a person can, `for_a_person` is the reason.

    `about` is the object if there may be several (a host, a file): the finding explains only findings about the same
    object.
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
        """Advice, with the command in backticks."""
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
"""A fault of one of these topics suppresses findings of the topic, as its consequences."""


def remove_consequences(findings: Iterable[DoctorFinding]) -> list[DoctorFinding]:
    """Return the findings without consequences of others and without duplicates."""
    every = list(dict.fromkeys(findings))
    faults = [one for one in every if one.severity is FindingSeverity.FAULT]

    def is_explained(finding: DoctorFinding) -> bool:
        causes = EXPLAINED_BY.get(finding.topic, frozenset())
        return finding.severity is not FindingSeverity.OK and any(
            other.topic in causes and other is not finding and _is_same(finding.about, other.about) for other in faults
        )

    return [one for one in every if not is_explained(one)]


def _is_same(about: str, other: str) -> bool:
    return not about or not other or about == other
