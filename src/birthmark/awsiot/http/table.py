"""The operations of the service models `iot`, `iot-data` and `iot-jobs-data`, served or not.

`operations.json` is written by `tools/make_aws_operations.py` from botocore's models: a new operation is a method
of its name, and the table knows its path, where each member stands and what it may be.
"""

import re
from functools import cached_property
from pathlib import Path

import msgspec

from birthmark.text import decode_json

_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NAMED_TWICE = frozenset({("iot-jobs-data", "DescribeJobExecution")})  # for devices; operators have one in `iot`
_NOT_OURS = frozenset({"api", "jobs"})  # the hub has paths that begin so; what is signed comes here all the same


class Member(msgspec.Struct, frozen=True):
    """One member of a request: its place (uri, querystring, header, body), its name there, and what it may be."""

    name: str
    place: str
    wire: str
    type: str
    required: bool = False
    enum: tuple[str, ...] = ()
    pattern: str = ""
    min: int | None = None
    max: int | None = None


class Operation(msgspec.Struct, frozen=True, dict=True):
    """One operation; `path` has its names in braces."""

    name: str
    service: str
    method: str
    path: str
    members: tuple[Member, ...]
    whole: str = ""
    """The member, a structure, that a body is and not has."""

    @property
    def form(self) -> str:
        """The command that shows what it takes."""
        return f"aws {self.service} {self.verb.replace('_', '-')} --generate-cli-skeleton"

    @cached_property
    def verb(self) -> str:
        """The name as Python writes it."""
        return _WORD.sub("_", self.name).lower()

    @cached_property
    def title(self) -> str:
        """The name by which it is known among those of all services."""
        return f"{self.name} ({self.service})" if (self.service, self.name) in _NAMED_TWICE else self.name

    @cached_property
    def handled_by(self) -> str:
        """The method that serves it."""
        return f"{self.verb}_by_device" if self.title != self.name else self.verb

    @cached_property
    def segments(self) -> tuple[str, ...]:
        return tuple(self.path.strip("/").split("/"))

    @cached_property
    def by_name(self) -> dict[str, Member]:
        return {member.name: member for member in self.members}


OPERATIONS = decode_json((Path(__file__).parent / "operations.json").read_bytes(), tuple[Operation, ...])
FIRST_SEGMENTS = frozenset(operation.segments[0] for operation in OPERATIONS) - _NOT_OURS
