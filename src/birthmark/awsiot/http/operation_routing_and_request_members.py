"""Operation routing by method and raw path, and typed request members.

ARNs and topics are percent-encoded in one segment, so routing uses the undecoded path. If a literal and a parameter
both match, the literal wins (`/thing-groups/addThingToThingGroup`).
"""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, unquote_to_bytes

import msgspec

from birthmark.awsiot.model import Account, MemberNotServedError, OperationNotServedError
from birthmark.awsiot.service.device_authorization import ConnectionGrant
from birthmark.awsiot.wire import BodyInvalidError, parse_body
from birthmark.errors import BirthmarkError
from birthmark.store.pagination import Page, marker_of, page_size, parse_marker
from birthmark.unknown_field_detection import find_unread_member, says_something
from birthmark.untrusted_json_and_text import decode_json, whole_number

_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NAMED_TWICE = frozenset({("iot-jobs-data", "DescribeJobExecution")})  # for devices; `iot` has one for operators
_NOT_OURS = frozenset({"api", "jobs"})  # hub paths share these prefixes; signed requests are routed here anyway


class Member(msgspec.Struct, frozen=True):
    """One member of a request: its location (uri, querystring, header, body), its wire name, and its type."""

    name: str
    place: str
    wire: str
    type: str
    required: bool = False
    enum: tuple[str, ...] = ()
    pattern: str = ""
    min: int | None = None
    max: int | None = None


class AwsOperation(msgspec.Struct, frozen=True, dict=True):
    """One operation; `path` has its parameters in braces."""

    name: str
    service: str
    method: str
    path: str
    members: tuple[Member, ...]
    whole: str = ""
    """Structure member whose value is the complete request body."""

    @property
    def form(self) -> str:
        """Command that shows the operation's parameters."""
        return f"aws {self.service} {self.verb.replace('_', '-')} --generate-cli-skeleton"

    @cached_property
    def verb(self) -> str:
        """The operation's name in snake case."""
        return _WORD.sub("_", self.name).lower()

    @cached_property
    def title(self) -> str:
        """Unique name of the operation across all services."""
        return f"{self.name} ({self.service})" if (self.service, self.name) in _NAMED_TWICE else self.name

    @cached_property
    def handled_by(self) -> str:
        """The name of the method that serves the operation."""
        return f"{self.verb}_by_device" if self.title != self.name else self.verb

    @cached_property
    def segments(self) -> tuple[str, ...]:
        return tuple(self.path.strip("/").split("/"))

    @cached_property
    def by_name(self) -> dict[str, Member]:
        return {member.name: member for member in self.members}


OPERATIONS = decode_json((Path(__file__).parent / "operations.json").read_bytes(), tuple[AwsOperation, ...])
FIRST_SEGMENTS = frozenset(operation.segments[0] for operation in OPERATIONS) - _NOT_OURS


UNSERVED: Mapping[str, frozenset[str]] = {
    "CreateThingType": frozenset({"thingTypeProperties.mqtt5Configuration"}),
    "UpdateThingType": frozenset({"thingTypeProperties.mqtt5Configuration"}),
    "GetEffectivePolicies": frozenset({"cognitoIdentityPoolId"}),
    "TestAuthorization": frozenset({"cognitoIdentityPoolId"}),
    "GetConnection": frozenset({"includeSocketInformation"}),
    "GetThingConnectivityData": frozenset({"includeSocketInformation"}),
    "ListCACertificates": frozenset({"templateName"}),
    "CreateJob": frozenset({"namespaceId", "destinationPackageVersions"}),
    "CreateJobTemplate": frozenset({"destinationPackageVersions"}),
    "UpdateJob": frozenset({"namespaceId"}),
    "ListJobs": frozenset({"thingGroupId", "namespaceId"}),
    **dict.fromkeys(
        ("AssociateTargetsWithJob", "DeleteJob", "DeleteJobExecution", "ListJobExecutionsForThing"),
        frozenset({"namespaceId"}),
    ),
    "ListPolicyPrincipals": frozenset({"ascendingOrder"}),
    "ListPrincipalPolicies": frozenset({"ascendingOrder"}),
}
"""Unsupported members by operation (a dot separates nested members)."""
_NOTHING = frozenset({"false", "False", "DISABLE"})
"""Values that disable a member."""


def check_served(operation: AwsOperation, query: Mapping[str, str], body: Mapping[str, Any]) -> None:
    """Raise `MemberNotServedError` for the first request member that would be ignored."""
    for member in _dropped(operation, query, body):
        raise MemberNotServedError(member=member[:100], operation=operation.name)


def _dropped(operation: AwsOperation, query: Mapping[str, str], body: Mapping[str, Any]) -> Iterator[str]:
    known = {member.wire for member in operation.members if member.place == "body"}
    yield from (name for name, value in body.items() if name not in known and says_something(value))
    for path in sorted(UNSERVED.get(operation.name, ())):
        first, _, second = path.partition(".")
        member = operation.by_name[first]
        value = query.get(member.wire) if member.place == "querystring" else body.get(member.wire)
        if second:
            value = value.get(second) if isinstance(value, dict) else None
        if says_something(value) and str(value) not in _NOTHING:
            yield path


_TOPIC_PATH = "/topics/"
_PUBLISH = "aws iot-data publish --generate-cli-skeleton"
_FLAGS = {"true": True, "True": True, "false": False, "False": False, True: True, False: False}
# Body value for each type of the service model; the others are structures, which `part` reads.
_IN_BODY: Mapping[str, Any] = {"string": str | None, "boolean": bool, "integer": int | None, "long": int | None}
T = TypeVar("T")


@dataclass(frozen=True)
class AwsRequest:
    """One authenticated request with its members, named as in the service model, and the caller."""

    operation: AwsOperation
    names: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    actor: str
    grant: ConnectionGrant
    note: Callable[[BirthmarkError], object]
    """Records an error that is reported in another place than the response."""
    account: Account
    """The account, with ARNs in the requested region."""

    @property
    def operator(self) -> str | None:
        """The actor if the caller is an operator, not a device."""
        return self.actor if self.grant.is_operator else None

    def get(self, name: str) -> str | None:
        """Return a member or None. Raise `BodyInvalidError` if it is invalid."""
        value: str | None = self._given(name)
        if (member := self.operation.by_name.get(name)) is None:
            return None
        if member.required and (value is None or (not value and member.place != "body")):
            raise BodyInvalidError(detail=f"{name} is missing")
        if value is not None and member.enum and value not in member.enum:
            raise BodyInvalidError(detail=f"{name} is {value[:60]!r}, not one of {', '.join(member.enum)}")
        return value

    def _given(self, name: str) -> Any:
        match self.operation.by_name.get(name):
            case Member(place="uri", wire=wire):
                return self.names.get(wire)
            case Member(place="header", wire=wire):
                return self.headers.get(wire.lower())
            case Member(place="querystring", wire=wire):
                return self.query.get(wire)
            case Member(wire=wire, type=kind) if wire in self._members:
                return _converted(name, self._members[wire], _IN_BODY[kind])
            case _:
                return None

    @cached_property
    def _members(self) -> Mapping[str, Any]:
        given = parse_body(self.body, dict[str, Any])
        return {self.operation.whole: given} if self.operation.whole else given

    def check_served(self) -> None:
        """Raise `MemberNotServedError` if it contains unsupported members."""
        is_raw = any(member.type == "blob" and member.place == "body" for member in self.operation.members)
        check_served(self.operation, self.query, {} if is_raw else self._members)

    def __getitem__(self, name: str) -> str:
        return self.get(name) or ""

    def part(self, name: str, kind: type[T]) -> T | None:
        """Return a structure of the body or None. Raise `BodyInvalidError`."""
        value = self._members.get(name)
        if value is None:
            return None
        if (member := find_unread_member(value, kind)) is not None:
            raise MemberNotServedError(member=f"{name}.{member}"[:100], operation=self.operation.name)
        made: T = _converted(name, value, kind)
        return made

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a boolean. Raise `BodyInvalidError`."""
        if (value := self._given(name)) is None:
            return default
        if value not in _FLAGS:
            raise BodyInvalidError(detail=f"{name} is neither true nor false")
        return _FLAGS[value]

    def has_member(self, name: str) -> bool:
        """Return whether the request contains a member."""
        return self._given(name) is not None

    def number(self, name: str) -> int | None:
        """Return an integer. Raise `BodyInvalidError`."""
        value: str | int | None = self._given(name)
        if not isinstance(value, str):
            return value
        if (number := whole_number(value)) is None:
            raise BodyInvalidError(detail=f"{name} is not a number")
        return number

    @property
    def size(self) -> int:
        """Requested page size, under either of its names."""
        return page_size(self.query.get("pageSize") or self.query.get("maxResults"))

    @property
    def after(self) -> str:
        """Requested start of the page, under either name of the marker."""
        return parse_marker(self.query.get("marker") or self.query.get("nextToken"))

    def paged(self, entries: str, items: Sequence[Any], page: Page[Any]) -> dict[str, Any]:
        """Return a page of a list, with a token only if more follow."""
        more = "nextMarker" if "marker" in self.operation.by_name else "nextToken"
        return {entries: list(items)} | ({} if page.last is None else {more: marker_of(page.last)})


Handler = Callable[[AwsRequest], Awaitable[Any]]


class OperationRouter:
    """Selects operations and their handlers."""

    def __init__(self, handlers: Mapping[str, Handler], table: Sequence[AwsOperation] = OPERATIONS) -> None:
        self._handlers = handlers
        self._by_shape: dict[tuple[str, int], list[AwsOperation]] = {}
        self._greedy: dict[str, list[AwsOperation]] = {}
        for operation in table:
            if operation.path.endswith("+}"):
                self._greedy.setdefault(operation.method, []).append(operation)
            self._by_shape.setdefault((operation.method, len(operation.segments)), []).append(operation)
        for same in self._by_shape.values():  # literals before parameters, served before unserved
            same.sort(
                key=lambda one: ([segment.startswith("{") for segment in one.segments], one.title not in handlers)
            )

    def _candidates(self, method: str, count: int) -> Iterator[AwsOperation]:
        """Yield the operations for a number of path segments.

        The last parameter of some operations takes all remaining segments.
        """
        yield from self._by_shape.get((method, count), ())
        yield from (one for one in self._greedy.get(method, ()) if len(one.segments) < count)

    def find(
        self, method: str, raw_path: str, service: str | None = None
    ) -> tuple[AwsOperation, Handler, Mapping[str, str]]:
        """Return the operation, its handler, and the path parameters. Raise `OperationNotServedError`.

        Of operations with the same path, that of `service` wins, for which the request was signed.
        """
        if raw_path.startswith(_TOPIC_PATH):
            segments = ["topics", _topic_of(raw_path)]
        else:
            segments = [unquote(segment) for segment in raw_path.strip("/").split("/")]
        found: tuple[AwsOperation, Mapping[str, str]] | None = None
        for operation in self._candidates(method, len(segments)):
            if found is not None and operation.service != service:
                continue
            if (names := _match(operation.segments, segments)) is not None:
                found = operation, names
                if service is None or operation.service == service:
                    break
        if found is None:
            raise OperationNotServedError(operation="That", method=method, path=raw_path[:200])
        operation, names = found
        if (handler := self._handlers.get(operation.title)) is None:
            raise OperationNotServedError(operation=operation.name, method=method, path=raw_path[:200])
        return operation, handler, names


def _joined(segments: Sequence[str], count: int) -> Sequence[str]:
    """Return `count` segments; the last one contains the remaining path."""
    return [*segments[: count - 1], "/".join(segments[count - 1 :])]


def _topic_of(raw_path: str) -> str:
    """Return the decoded topic; both `a%2Fb` and `a/b` are in use, and a literal percent sign is %25."""
    try:
        return unquote_to_bytes(raw_path[len(_TOPIC_PATH) :]).decode()
    except UnicodeDecodeError as error:
        raise BodyInvalidError(detail="the topic is not UTF-8", command=_PUBLISH) from error


def _converted(name: str, value: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise BodyInvalidError(detail=f"{name}: {error}"[:300]) from error


def _match(template: Sequence[str], segments: Sequence[str]) -> Mapping[str, str] | None:
    names: dict[str, str] = {}
    if template[-1].endswith("+}"):
        segments = _joined(segments, len(template))
    for wanted, given in zip(template, segments, strict=True):
        if wanted.startswith("{"):
            if not given:
                return None
            names[wanted.strip("{+}")] = given
        elif wanted != given:
            return None
    return names
