"""All paths of the hub, and its own response for unknown paths."""

from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.iothub.http import device_api, file_uploads, queries, service_api
from birthmark.iothub.http.authorization_and_errors import Record, guarded
from birthmark.iothub.model import parse_device_id
from birthmark.iothub.ports import DeviceCalls
from birthmark.iothub.rules.publish_refusals import PathNotServedError
from birthmark.iothub.service import IotHub

_NAMING, _OF_ONE = frozenset({"devices", "twins"}), 2
_ANY = ["GET", "POST", "PUT", "PATCH", "DELETE"]
# First path segments of the hub's REST interface that are not served (REST reference, "Service").
_UNSERVED = ("jobs", "configurations", "messages", "digitaltwins", "modules", "serviceStats", "file", "query")


def routes(iothub: IotHub, to_devices: DeviceCalls, record: Record) -> list[Route]:
    """Return the hub's routes; `record` logs a refusal and returns its tracking id."""

    async def unserved(request: Request) -> Response:
        raw = request.scope.get("raw_path", b"").decode("latin-1").partition("?")[0].split("/")
        if len(raw) > _OF_ONE and raw[1] in _NAMING:  # percent-encoded slashes in a name do not split the path
            parse_device_id(unquote(raw[2]))
        raise PathNotServedError(method=request.method, path=request.url.path[:200])

    # After the served routes, so that another path or method of the hub differs from a missing device.
    elsewhere = [
        *("/devices", "/devices/", "/devices/query", "/devices/{device_id}", "/devices/{device_id}/{rest:path}"),
        *(f"/{first}{rest}" for first in _UNSERVED for rest in ("", "/{rest:path}")),
        *("/twins/{device_id}", "/twins/{device_id}/{rest:path}", "/statistics", "/statistics/{rest:path}"),
    ]
    answer = guarded(unserved, record)
    return [
        *queries.routes(iothub, to_devices, record),
        *service_api.routes(iothub, to_devices, record),
        *device_api.routes(iothub, record),
        *file_uploads.routes(iothub, record),
        *(Route(path, answer, methods=_ANY) for path in elsewhere),
    ]
