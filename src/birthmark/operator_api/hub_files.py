"""Operator API of a hub's files: list them, and issue a signature for storage clients."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Annotated, Any

import msgspec

from birthmark.auth.permission_statements import Right
from birthmark.blob_storage.rules import ContainerNotFoundError
from birthmark.blob_storage.wire import ListRequest
from birthmark.iothub.service import IotHub
from birthmark.iothub.service.file_uploads import UPLOADS_CONTAINER
from birthmark.operator_api.api_router import ApiRequest, Endpoint, Rows

_MAX_S = 30 * 86_400


class FileQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Page of a container's files."""

    container: str = UPLOADS_CONTAINER
    prefix: str = ""
    after: str = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=250)] = 100


class NewSignature(msgspec.Struct):
    """A shared access signature to issue."""

    container: str
    permissions: str = "rl"
    create: bool = False
    lasts_s: Annotated[int, msgspec.Meta(ge=60, le=_MAX_S)] = 3600


def endpoints(iothub: IotHub, port: Callable[[], int]) -> Sequence[Endpoint]:
    """Return the routes of `birthmark hub file`."""
    hubs, files = iothub.hubs, iothub.files

    async def listing(request: ApiRequest) -> Rows:
        wanted: FileQuery = request.query
        hub = hubs.by_name(request["name"])
        page = ListRequest(wanted.prefix, wanted.after, wanted.limit)
        try:
            found, marker = await files.get_storage().page(hub.name, wanted.container, page)
        except ContainerNotFoundError:
            if wanted.container != UPLOADS_CONTAINER:  # made by the first upload
                raise
            return Rows([])
        return Rows([_view(one.name, one.size, one.modified_at.isoformat()) for one in found], marker or None)

    async def sign(request: ApiRequest) -> Any:
        wanted: NewSignature = request.body
        hub = hubs.by_name(request["name"])
        life = timedelta(seconds=wanted.lasts_s)
        container = await files.sign_container(
            hub, wanted.container, wanted.permissions, life, creates=wanted.create, actor=request.actor
        )
        return {"container": wanted.container, "url": container.url(_authority(hub.host, port()))}

    every = "/hubs/{name}/files"
    return [
        Endpoint("GET", every, Right.READ, "List the files of a container.", listing, query=FileQuery),
        Endpoint(
            *("POST", f"{every}/signatures", Right.ADMINISTER, "Issue a shared access signature for a container."),
            sign,
            NewSignature,
            status=201,
        ),
    ]


def _view(name: str, size: int, modified: str) -> dict[str, Any]:
    return {"name": name, "size": size, "modified": modified}


def _authority(host: str, port: int) -> str:
    return host if port == _HTTPS else f"{host}:{port}"


_HTTPS = 443
