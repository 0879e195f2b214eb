"""Blob service REST over HTTP: authorize by the signature before a body is read, stream bodies, render."""

import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from birthmark.blob_storage import wire
from birthmark.blob_storage.error_mapping import http_error
from birthmark.blob_storage.model import SasClaims, SasPermission, StoredBlob
from birthmark.blob_storage.rules import (
    BlobConditions,
    BlobPath,
    RangeInvalidError,
    check_path,
    check_permission,
    find_unmet_condition,
    parse_range,
)
from birthmark.blob_storage.service import (
    BlobAccounts,
    BlobContent,
    BlobStorage,
    UploadGrant,
    WriteScope,
    check_conditions,
)
from birthmark.errors import BirthmarkError, ThrottledError
from birthmark.net.fair_scheduler import yield_turn
from birthmark.net.file_range_response import FileRangeResponse
from birthmark.net.http_route_wrappers import Handler, refusing
from birthmark.untrusted_json_and_text import whole_number

_MAX_CONTENT_TYPE = 256
_METHODS = ("GET", "HEAD", "PUT", "DELETE")
_VERSION = re.compile(r"\d{4}-\d\d-\d\d")
_REQUEST_ID = re.compile(r"[!-~]{1,256}")
_LIST_PARAMETERS = frozenset({"restype", "comp", "prefix", "marker", "maxresults", "include"})
_MAX_PAGE = 5000
_INERT = {"x-content-type-options": "nosniff", "content-security-policy": "sandbox"}
"""Headers of every download: a device chooses the content type, and a browser must not run its scripts."""
_CONDITIONAL = ("if-match", "if-none-match", "if-modified-since", "if-unmodified-since")
Record = Callable[[BirthmarkError, Request], str]


@dataclass(frozen=True, slots=True)
class _BlobCall:
    """An authorized call of an operation."""

    request: Request
    path: BlobPath
    claims: SasClaims
    grant: UploadGrant

    @property
    def query(self) -> Mapping[str, str]:
        return self.request.query_params

    @property
    def headers(self) -> Mapping[str, str]:
        return self.request.headers

    def permit(self, *allowed: SasPermission, served: frozenset[str] = frozenset()) -> None:
        """Raise `BlobAccessError`, or `BlobRequestInvalidError` for what this operation would ignore."""
        check_permission(self.claims, *allowed)
        wire.check_known(self.headers, self.query, served)

    def scope(self) -> WriteScope:
        """Return the scope of a write."""
        return WriteScope(self.path, self.grant.owner, _conditions_of(self.request), self.grant.guard)

    def new_scope(self) -> WriteScope:
        """Return the scope of a write of a blob, which must be new without the permission to write."""
        scope = self.scope()
        if SasPermission.WRITE.value in self.claims.permissions:
            return scope
        return replace(scope, conditions=replace(scope.conditions, if_none_match="*"))

    def content(self) -> BlobContent:
        """Return the streamed body with its digests. Raise `BlobRequestInvalidError`."""
        md5, crc64 = self.headers.get("content-md5"), self.headers.get("x-ms-content-crc64")
        return BlobContent(
            self.request.stream(),
            None if md5 is None else wire.parse_digest(md5, 16, "Content-MD5", "InvalidMd5"),
            None if crc64 is None else wire.parse_digest(crc64, 8, "x-ms-content-crc64", "InvalidCrc64"),
            self._content_headers(),
            dict(wire.parse_metadata(self.headers)),
        )

    def _content_headers(self) -> dict[str, str]:
        found = dict(wire.parse_content_headers(self.headers))
        usual = self.headers.get("content-type", "")
        if len(usual) > _MAX_CONTENT_TYPE:
            raise wire.refused(f"Content-Type has more than {_MAX_CONTENT_TYPE} characters", "InvalidHeaderValue")
        if usual and usual.isascii() and "comp" not in self.query:
            found.setdefault("content-type", usual)
        return found

    async def small_body(self, limit: int) -> bytes:
        """Return a body up to a limit, verified by its digest. Raise `BlobRequestInvalidError`."""
        body = b""
        async for piece in self.request.stream():
            body += piece
            if len(body) > limit:
                raise wire.refused(f"the body has more than {limit} bytes", "RequestBodyTooLarge")
        if (md5 := self.headers.get("content-md5")) is not None:
            expected = wire.parse_digest(md5, 16, "Content-MD5", "InvalidMd5")
            if hashlib.md5(body, usedforsecurity=False).digest() != expected:
                raise wire.refused("the content does not match Content-MD5", "Md5Mismatch")
        if "x-ms-content-crc64" in self.headers:
            raise wire.refused("x-ms-content-crc64 is not supported for this operation", "UnsupportedHeader")
        return body


def routes(storage: BlobStorage, accounts: BlobAccounts, record: Record) -> list[Route]:
    """Return the route of the endpoint; `record` logs a refusal and returns its tracking id."""
    operations = _Operations(storage)

    async def serve(request: Request) -> Response:
        account = accounts.account_of(request.headers.get("host", ""))
        container, _, name = request.scope["path"].removeprefix(f"/{wire.ACCOUNT_PATH}/").partition("/")
        path = BlobPath(account.name, container, name)
        query = request.query_params
        claims = wire.parse_sas(account, container, name or None, query, storage.now())
        check_path(path)
        grant = await accounts.find_upload(account.name, claims) if claims.identifier else UploadGrant("")
        if (connection := request.scope["extensions"].get("connection")) is not None:
            connection.mark_authenticated(f"blob:{account.name}/{grant.owner}")
            request.scope["extensions"]["stream_body"]()
        handler = operations.find(request.method, query, is_blob=bool(name))
        return _described(await handler(_BlobCall(request, path, claims, grant)), request, storage.request_id())

    def render(error: BirthmarkError, request: Request) -> Response:
        return _refusal(error, request, record(error, request))

    handler: Handler = refusing(serve, render)
    return [Route(f"/{wire.ACCOUNT_PATH}/{{path:path}}", handler, methods=list(_METHODS))]


class _Operations:
    """The operations of the endpoint."""

    def __init__(self, storage: BlobStorage) -> None:
        self._storage = storage
        self._of_blob: Mapping[tuple[str, str], Callable[[_BlobCall], Awaitable[Response]]] = {
            ("PUT", ""): self._put,
            ("PUT", "block"): self._put_block,
            ("PUT", "blocklist"): self._put_block_list,
            ("PUT", "metadata"): self._set_metadata,
            ("GET", ""): self._get,
            ("HEAD", ""): self._get,
            ("DELETE", ""): self._delete,
        }
        self._of_container: Mapping[tuple[str, str], Callable[[_BlobCall], Awaitable[Response]]] = {
            ("PUT", ""): self._create_container,
            ("GET", ""): self._describe_container,
            ("HEAD", ""): self._describe_container,
            ("GET", "list"): self._list,
        }

    def find(
        self, method: str, query: Mapping[str, str], *, is_blob: bool
    ) -> Callable[[_BlobCall], Awaitable[Response]]:
        """Return the operation of a request. Raise `BlobRequestInvalidError`."""
        key = method, query.get("comp", "")
        known = self._of_blob if is_blob else self._of_container
        if (is_blob or query.get("restype") == "container") and key in known:
            return known[key]
        shown = ", ".join(f"{name}={query[name][:40]}" for name in ("restype", "comp") if name in query)
        raise wire.refused(
            f"the operation {method} {shown} is not supported".replace("  ", " "), "UnsupportedQueryParameter"
        )

    async def _put(self, asked: _BlobCall) -> Response:
        asked.permit(SasPermission.WRITE, SasPermission.CREATE)
        if (kind := asked.headers.get("x-ms-blob-type", "")) != "BlockBlob":
            raise wire.refused(
                f"x-ms-blob-type is {kind[:40] or 'missing'}, and must be BlockBlob", "InvalidHeaderValue"
            )
        blob = await self._storage.put(asked.new_scope(), asked.content())
        return Response(status_code=201, headers=_written(blob))

    async def _put_block(self, asked: _BlobCall) -> Response:
        asked.permit(SasPermission.WRITE, SasPermission.CREATE, served=frozenset({"comp", "blockid"}))
        block_id = wire.parse_block_id(asked.query.get("blockid", ""))
        # The SDKs send the metadata and content headers of the blob with each block, and again with the list.
        life = asked.claims.expires_at - self._storage.now()
        await self._storage.put_block(asked.scope(), block_id, asked.content(), max(life, timedelta(seconds=1)))
        return Response(status_code=201, headers={"x-ms-request-server-encrypted": "false"})

    async def _put_block_list(self, asked: _BlobCall) -> Response:
        asked.permit(SasPermission.WRITE, SasPermission.CREATE, served=frozenset({"comp"}))
        references = wire.parse_block_list(await asked.small_body(wire.MAX_BLOCK_LIST_BYTES))
        blob = await self._storage.put_block_list(asked.new_scope(), references, asked.content())
        return Response(status_code=201, headers=_written(blob))

    async def _set_metadata(self, asked: _BlobCall) -> Response:
        asked.permit(SasPermission.WRITE, served=frozenset({"comp"}))
        if asked.claims.identifier:  # it would make an older file count as the one that is uploaded
            raise wire.refused("the metadata of an uploaded file is part of its upload", "UnsupportedQueryParameter")
        blob = await self._storage.set_metadata(asked.scope(), dict(wire.parse_metadata(asked.headers)))
        return Response(status_code=200, headers=_written(blob))

    async def _delete(self, asked: _BlobCall) -> Response:
        asked.permit(SasPermission.DELETE)
        await self._storage.delete(asked.scope())
        return Response(status_code=202)

    async def _get(self, asked: _BlobCall) -> Response:
        asked.permit(SasPermission.READ)
        blob = await self._storage.get(asked.path)
        headers, conditions = wire.blob_headers(blob), _conditions_of(asked.request)
        if find_unmet_condition(conditions, blob) in {"If-None-Match", "If-Modified-Since"}:
            return Response(status_code=304, headers={"etag": blob.etag, "x-ms-error-code": "ConditionNotMet"})
        check_conditions(asked.path, conditions, blob)
        if asked.request.method == "HEAD":
            return Response(None, 200, {**headers, "content-length": str(blob.size)}, headers["content-type"])
        wanted = parse_range(asked.headers.get("x-ms-range") or asked.headers.get("range", ""), blob.size)
        if wanted == range(0):
            raise RangeInvalidError(hub=asked.path.account, name=asked.path.facts["name"], size=blob.size)
        with ExitStack() as held:
            held.enter_context(self._storage.reading(asked.path))
            file = held.enter_context(await self._storage.open(asked.path, blob))
            if wanted is not None:
                headers["content-range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{blob.size}"
                if (md5 := headers.pop("content-md5", None)) is not None:
                    headers["x-ms-blob-content-md5"] = md5
            status = 200 if wanted is None else 206
            part = range(blob.size) if wanted is None else wanted
            return FileRangeResponse(file, part, held.pop_all(), status=status, headers=headers | _INERT)

    async def _create_container(self, asked: _BlobCall) -> Response:
        asked.permit(SasPermission.CREATE, SasPermission.WRITE, served=frozenset({"restype"}))
        if wire.parse_metadata(asked.headers):
            raise wire.refused("metadata of containers is not supported", "UnsupportedHeader")
        made = await self._storage.create_container(asked.path.account, asked.path.container)
        return Response(status_code=201, headers=_dated(made.etag, made.created_at))

    async def _describe_container(self, asked: _BlobCall) -> Response:
        asked.permit(SasPermission.READ, SasPermission.LIST, served=frozenset({"restype"}))
        found = await self._storage.container(asked.path.account, asked.path.container)
        return Response(status_code=200, headers=_dated(found.etag, found.created_at))

    async def _list(self, asked: _BlobCall) -> Response:
        asked.permit(SasPermission.LIST, served=_LIST_PARAMETERS)
        query = asked.query
        included = {one for one in query.get("include", "").split(",") if one}
        if included - {"metadata"}:
            raise wire.refused("include may be metadata", "InvalidQueryParameterValue")
        limit = whole_number(query.get("maxresults", str(_MAX_PAGE)))
        if not limit:
            raise wire.refused("maxresults must be 1 or more", "OutOfRangeQueryParameterValue")
        wanted = wire.ListRequest(
            query.get("prefix", ""), query.get("marker", ""), min(limit, _MAX_PAGE), "metadata" in included
        )
        blobs, marker = await self._storage.page(asked.path.account, asked.path.container, wanted)
        body = bytearray()
        for part in wire.list_parts(asked.path.container, wanted, blobs, marker):
            body += part.encode()
            await yield_turn()
        return Response(bytes(body), 200, None, "application/xml")


def _conditions_of(request: Request) -> BlobConditions:
    return BlobConditions(*(request.headers.get(name, "").strip() for name in _CONDITIONAL))


def _dated(etag: str, moment: datetime) -> dict[str, str]:
    return {"etag": etag, "last-modified": wire.http_date(moment)}


def _written(blob: StoredBlob) -> dict[str, str]:
    found = {**_dated(blob.etag, blob.modified_at), "x-ms-request-server-encrypted": "false"}
    return found | ({"content-md5": blob.headers["content-md5"]} if "content-md5" in blob.headers else {})


def _described(response: Response, request: Request, request_id: str) -> Response:
    """Add the headers of every response."""
    version, client = (request.headers.get(name, "") for name in ("x-ms-version", "x-ms-client-request-id"))
    response.headers["x-ms-version"] = version if _VERSION.fullmatch(version) else wire.SAS_VERSION
    response.headers["x-ms-request-id"] = request_id
    if _REQUEST_ID.fullmatch(client):
        response.headers["x-ms-client-request-id"] = client
    return response


def _refusal(error: BirthmarkError, request: Request, tracking_id: str) -> Response:
    status, name = http_error(error)
    headers = {"x-ms-error-code": name}
    if isinstance(error, ThrottledError):
        headers["retry-after"] = str(error.retry_after_s)
    body = b"" if request.method == "HEAD" else wire.render_error(name, str(error))
    return _described(Response(body, status, headers, "application/xml"), request, tracking_id)
