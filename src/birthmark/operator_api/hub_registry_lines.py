"""Operator API of a hub's registry as lines: devices and modules with their twins, in the form of import and export."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.errors import BirthmarkError, UnavailableError
from birthmark.iothub.model import Hub
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.registry_jobs import IMPORT_RIGHTS
from birthmark.operator_api.api_router import ApiRequest, Endpoint, LineStream
from birthmark.store import Changes
from birthmark.untrusted_json_and_text import decode_json

MAX_LINES = 100


class ExportQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which lines to export."""

    keys: bool = False


class ImportedLines(msgspec.Struct):
    """Lines to import, in order."""

    lines: Annotated[list[str], msgspec.Meta(min_length=1, max_length=MAX_LINES)]


def endpoints(iothub: IotHub) -> Sequence[Endpoint]:
    """Return the routes of `birthmark hub export` and `birthmark hub import`."""
    hubs, jobs = iothub.hubs, iothub.registry_jobs

    async def export(request: ApiRequest) -> LineStream:
        query: ExportQuery = request.query
        hub = hubs.by_name(request["name"])
        if query.keys:
            request.require_permission(Right.ENROLL, f"hub/{hub.name}")
            changes = Changes().audit(request.actor, "iothub.registry_export", hub.name, with_keys=True)
            await jobs.database.commit(changes)
        return LineStream(_lines(hub, with_keys=query.keys))

    async def _lines(hub: Hub, *, with_keys: bool) -> AsyncIterator[Mapping[str, Any]]:
        async for line in jobs.lines(hub, with_keys=with_keys):
            yield decode_json(line)

    async def put(request: ApiRequest) -> Any:
        hub, errors = hubs.by_name(request["name"]), []
        for right in IMPORT_RIGHTS:
            request.require_permission(right, f"hub/{hub.name}")
        for number, line in enumerate(request.body.lines, start=1):
            try:
                await jobs.apply_line(hub, line.encode(errors="surrogatepass"), request.actor)
            except UnavailableError:
                raise
            except BirthmarkError as error:
                errors.append({"line": number, "code": error.code, "message": str(error)})
        return {"imported": len(request.body.lines) - len(errors), "errors": errors}

    one = "/hubs/{name}/registry"
    return [
        Endpoint("GET", one, Right.READ, "Export devices and modules, one per line.", export, query=ExportQuery),
        Endpoint("POST", one, Right.REVOKE, "Import up to 100 lines.", put, ImportedLines),
    ]
