"""Shared parts of the hub's routes: authorization and error responses."""

import json
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from birthmark.auth.permission_statements import Right
from birthmark.errors import BirthmarkError, InvalidRequestError, ThrottledError
from birthmark.iam.missing_right_errors import RightMissingError, format_refusal
from birthmark.iothub.error_mapping import http_error
from birthmark.iothub.model import Hub
from birthmark.iothub.ports import SeenAt
from birthmark.iothub.service.hubs_and_authorization import Hubs
from birthmark.iothub.service.queries import DEFAULT_PAGE, MAX_PAGE
from birthmark.iothub.wire import NEVER, BodyInvalidError, registry_time
from birthmark.net.http_route_wrappers import Handler, refusing, with_complete_body
from birthmark.store import from_micros
from birthmark.untrusted_json_and_text import whole_number

Record = Callable[[BirthmarkError, Request], str]
Authorized = Callable[[Request, Hub, frozenset[str], str, Right], str]
"""Authorize a request for a resource: by one of these policies, or a user with this right; return the caller."""
UNAUTHORIZED = (401, "IotHubUnauthorizedAccess", 401002)
"""Response to a device that fails to authenticate, whether the device exists or not."""
# The REST reference uses the first form, the Node SDK the second.
DEVICEBOUND, SERVICEBOUND = ("deviceBound", "devicebound"), ("serviceBound", "servicebound")


def seen_view(found: SeenAt) -> dict[str, Any]:
    """Return the connection fields of a device or module view."""
    activity = NEVER if found.at is None else registry_time(found.at)
    return {"is_connected": found.is_connected, "last_activity": activity}


def hub_of(hubs: Hubs, request: Request) -> Hub:
    """Return the hub of a request's host. Raise `UnknownHubError`."""
    return hubs.by_host(request.headers.get("host", ""))


def time_of(micros: int) -> str:
    """Return a time in the registry's format."""
    return registry_time(from_micros(micros))


def etag_of(request: Request) -> str | None:
    """Return the etag that a change requires."""
    value = request.headers.get("if-match")
    return None if value is None else value.strip().strip('"')


def page_size_of(request: Request) -> int:
    """Return the requested page size, capped at the maximum. Raise `BodyInvalidError`."""
    text = request.headers.get("x-ms-max-item-count", str(DEFAULT_PAGE))
    wanted = whole_number(text.removeprefix("-"))
    if wanted is None:
        raise BodyInvalidError(detail="x-ms-max-item-count must be a number")
    return min(wanted, MAX_PAGE) if wanted and not text.startswith("-") else DEFAULT_PAGE


def guarded(handler: Handler, record: Record) -> Handler:
    """Return a handler whose refusals are logged and returned in IoT Hub's error format."""
    return refusing(with_complete_body(handler), lambda error, request: render(error, record(error, request)))


def render(error: BirthmarkError, tracking_id: str) -> Response:
    """Return the response to a refused request."""
    is_told = isinstance(error, InvalidRequestError | RightMissingError)
    detail = format_refusal(error) if is_told else error.facts.get("device_id", str(error))
    answer = answer_of(http_error(error), detail, tracking_id)
    if isinstance(error, ThrottledError):
        answer.headers["retry-after"] = str(error.retry_after_s)
    return answer


def problem_view(error: BirthmarkError, device_id: str, module_id: str | None) -> dict[str, Any]:
    """Return the error of one item of a bulk operation."""
    _, name, _ = http_error(error)
    told = {"deviceId": device_id, "errorCode": name, "errorStatus": format_refusal(error)}
    return told if module_id is None else told | {"moduleId": module_id}


def answer_of(shown: tuple[int, str, int], detail: object, tracking_id: str) -> Response:
    """Return an error response with a status, the hub's error name and its number."""
    status, name, number = shown
    body = {"Message": f"ErrorCode:{name};{detail}", "ExceptionMessage": f"Tracking ID:{tracking_id}"}
    headers = {"iothub-errorcode": name, "x-ms-error-code": str(number)}
    return Response(json.dumps(body), status, headers, "application/json")
