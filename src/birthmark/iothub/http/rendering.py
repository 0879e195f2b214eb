"""What the hub's routes share: who is asked, and how a refusal looks."""

import json
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from birthmark.errors import BirthmarkError, InvalidRequestError
from birthmark.iothub.errors import http_error
from birthmark.iothub.model import Hub
from birthmark.iothub.service.hubs import Hubs
from birthmark.iothub.wire import registry_time
from birthmark.net.refusing import Handler, refusing, whole
from birthmark.people.demand import RightMissingError, said
from birthmark.store import from_micros

Record = Callable[[BirthmarkError, Request], str]
# The REST reference writes the first; the Node SDK asks for the second.
DEVICEBOUND, SERVICEBOUND = ("deviceBound", "devicebound"), ("serviceBound", "servicebound")


def hub_of(hubs: Hubs, request: Request) -> Hub:
    """Return the hub that a request names as its host. Raise `UnknownHubError`."""
    return hubs.by_host(request.headers.get("host", ""))


def time_of(micros: int) -> str:
    """Return a time as the registry writes it."""
    return registry_time(from_micros(micros))


def etag_of(request: Request) -> str | None:
    """Return the etag that a change is meant for."""
    value = request.headers.get("if-match")
    return None if value is None else value.strip().strip('"')


def guarded(handler: Handler, record: Record) -> Handler:
    """Return a handler whose refusals are recorded, and answered in the hub's own form."""
    return refusing(whole(handler), lambda error, request: render(error, record(error, request)))


def render(error: BirthmarkError, tracking_id: str) -> Response:
    """Return the answer to a refused request."""
    is_told = isinstance(error, InvalidRequestError | RightMissingError)
    detail = said(error) if is_told else error.facts.get("device_id", str(error))
    return answer_of(http_error(error), detail, tracking_id)


def answer_of(shown: tuple[int, str, int], detail: object, tracking_id: str) -> Response:
    """Return an answer by status, the hub's name of the error and its number."""
    status, name, number = shown
    body = {"Message": f"ErrorCode:{name};{detail}", "ExceptionMessage": f"Tracking ID:{tracking_id}"}
    headers = {"iothub-errorcode": name, "x-ms-error-code": str(number)}
    return Response(json.dumps(body), status, headers, "application/json")
