"""Which operation a request is: by method and raw path, each segment decoded once.

ARNs and topics stand percent-encoded in one segment, so routing looks at the path before it is decoded. Where a literal
and a name fit, the literal wins (`/thing-groups/addThingToThingGroup`).
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from birthmark.awsiot.service.pages import Page, marker_of, page_size, parse_marker
from birthmark.awsiot.wire import BodyInvalidError
from birthmark.errors import InvalidRequestError

_TOPIC_PATH = "/topics/"
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_FLAGS = {"true": True, "True": True, "false": False, "False": False}

# The first path segments of the service models: requests to them are for this room, signed or not.
_SEGMENTS = (
    "accept-certificate-transfer active-violations attached-policies audit authorizer authorizers "
    "behavior-model-training billing-groups cacertificate cacertificates cancel-certificate-transfer certificate "
    "certificate-providers certificates certificates-by-ca certificates-out-going command-executions commands "
    "confirmdestination connections custom-metric custom-metrics default-authorizer destinations detect "
    "dimensions domainConfigurations dynamic-thing-groups effective-policies encryption-configuration endpoint "
    "event-configurations fleet-metric fleet-metrics indexing indices job-templates keys-and-certificate "
    "loggingOptions managed-job-templates metric-values mitigationactions otaUpdates package-configuration "
    "packages policies policy-principals policy-targets principal-policies principals provisioning-templates "
    "registrationcode reject-certificate-transfer retainedMessage role-aliases rules security-profile-behaviors "
    "security-profiles security-profiles-for-target streams tags target-policies test-authorization thing-groups "
    "thing-registration-tasks thing-types things topics transfer-certificate untag v2LoggingLevel "
    "v2LoggingOptions violation-events violations"
)
FIRST_SEGMENTS = frozenset(_SEGMENTS.split())


class OperationNotServedError(InvalidRequestError):
    """An operation of the service that is not served."""

    code = "awsiot.operation_not_served"
    message = "{method} {path} is not implemented here"
    cause = "{method} {path} is an operation of AWS IoT that this server does not serve."
    fix = (
        "The page docs/reference/aws-iot.md lists the operations that are served, such as this: `aws iot list-things`. "
        "Nothing was changed."
    )

    method: str
    path: str


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated request: what the path, the query and the headers say, and who asks."""

    method: str
    names: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    actor: str

    def __getitem__(self, name: str) -> str:
        return self.names[name]

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a boolean of the query. Raise `BodyInvalidError`."""
        text = self.query.get(name)
        if text is None:
            return default
        if text not in _FLAGS:
            raise BodyInvalidError(detail=f"{name} is neither true nor false")
        return _FLAGS[text]

    def header(self, name: str) -> str:
        """Return a header that the operation needs. Raise `BodyInvalidError`."""
        if not (value := self.headers.get(name)):
            raise BodyInvalidError(detail=f"the header {name} is missing")
        return value

    def number(self, name: str) -> int | None:
        """Return a whole number of the query. Raise `BodyInvalidError`."""
        text = self.query.get(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 19):  # noqa: PLR2004 - 64 bits
            raise BodyInvalidError(detail=f"{name} is not a number")
        return int(text)

    @property
    def size(self) -> int:
        """The page size asked for, under either of its names."""
        return page_size(self.query.get("pageSize") or self.query.get("maxResults"))

    @property
    def after(self) -> str | None:
        """Where the page begins, under either name of the marker."""
        return parse_marker(self.query.get("marker") or self.query.get("nextToken"))

    @property
    def is_ascending(self) -> bool:
        return self.flag("isAscendingOrder")


Handler = Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: `path` as in the service model, with {names}."""

    name: str
    method: str
    path: str
    handler: Handler

    @property
    def form(self) -> str:
        """The command that shows what it takes."""
        return f"aws iot {_WORD.sub('-', self.name).lower()} --generate-cli-skeleton"

    @property
    def segments(self) -> Sequence[str]:
        return self.path.strip("/").split("/")


class Router:
    """Finds operations."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._by_shape: dict[tuple[str, int], list[Operation]] = {}
        for operation in operations:
            self._by_shape.setdefault((operation.method, len(operation.segments)), []).append(operation)
        for same in self._by_shape.values():  # literals before names
            same.sort(key=lambda operation: [segment.startswith("{") for segment in operation.segments])

    def find(self, method: str, raw_path: str) -> tuple[Operation, Mapping[str, str]]:
        """Return the operation and the names in the path. Raise `OperationNotServedError`."""
        if raw_path.startswith(_TOPIC_PATH):
            segments = ["topics", unquote(raw_path[len(_TOPIC_PATH) :])]
        else:
            segments = [unquote(segment) for segment in raw_path.strip("/").split("/")]
        for operation in self._by_shape.get((method, len(segments)), ()):
            names = _match(operation.segments, segments)
            if names is not None:
                return operation, names
        raise OperationNotServedError(method=method, path=raw_path[:200])


def paged(entries: str, items: Sequence[Any], page: Page[Any], *, more: str = "nextMarker") -> dict[str, Any]:
    """Return a page of a list; the token is there only when there is more."""
    answer: dict[str, Any] = {entries: list(items)}
    if page.last is not None:
        answer[more] = marker_of(page.last)
    return answer


def _match(template: Sequence[str], segments: Sequence[str]) -> Mapping[str, str] | None:
    names: dict[str, str] = {}
    for wanted, given in zip(template, segments, strict=True):
        if wanted.startswith("{"):
            if not given:
                return None
            names[wanted[1:-1]] = given
        elif wanted != given:
            return None
    return names


__all__ = ["FIRST_SEGMENTS", "Call", "Handler", "Operation", "OperationNotServedError", "Router", "paged"]
