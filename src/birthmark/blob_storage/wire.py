"""Shared access signatures, XML bodies and headers of the Blob service REST API."""

import base64
import binascii
import codecs
import hmac
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import sha256
from urllib.parse import quote, urlencode
from xml.sax.saxutils import escape, quoteattr

from birthmark.blob_storage.model import BlobAccount, SasClaims, SasPermission, StoredBlob
from birthmark.errors import InvalidRequestError, UnauthenticatedError

ACCOUNT_PATH = "storage"
"""First path segment of the endpoint, where Azure's clients expect the account for a host that is an address."""
SAS_VERSION = "2021-12-02"
MAX_PUT_BYTES = 256 * 1024 * 1024
"""Maximum body of Put Blob and Put Block."""
MAX_BLOCKS = 10_000
"""Maximum blocks of a blob."""
FEW_BLOCKS, LEAST_BLOCK_BYTES = 64, 128
"""A list of more blocks must have at least this many bytes per block: the quota counts the content, not the list."""
MAX_BLOCK_LIST_BYTES = 1024 * 1024
MAX_METADATA_BYTES = 8 * 1024
_MAX_BLOCK_ID_BYTES = 64
_MAX_HEADER_CHARS = 1024
_METADATA = "x-ms-meta-"
_METADATA_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_SIGNED = ("sv", "sr", "si", "se", "sp", "sig")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_LETTERS = frozenset(one.value for one in SasPermission)
_ITEM = re.compile(rb"\s*<(Latest|Committed|Uncommitted)>\s*([A-Za-z0-9+/]{1,86}={0,2})\s*</\1>\s*")
CONTENT_HEADERS: Mapping[str, str] = {
    "x-ms-blob-content-type": "content-type",
    "x-ms-blob-content-encoding": "content-encoding",
    "x-ms-blob-content-language": "content-language",
    "x-ms-blob-content-disposition": "content-disposition",
    "x-ms-blob-cache-control": "cache-control",
    "x-ms-blob-content-md5": "content-md5",
}
"""Headers that a request stores with a blob, and those that return them."""
# Node's SDK always sends the algorithm, also without the key that would make it count.
_KNOWN_HEADERS = frozenset(
    {
        "x-ms-encryption-algorithm",
        *CONTENT_HEADERS,
        *("x-ms-version", "x-ms-date", "x-ms-client-request-id", "x-ms-return-client-request-id"),
        *("x-ms-blob-type", "x-ms-content-crc64", "x-ms-range", "x-ms-delete-snapshots"),
    }
)
_KNOWN_PARAMETERS = frozenset({*_SIGNED, "timeout"})


class BlobRequestInvalidError(InvalidRequestError):
    """A request to the blob storage is not valid."""

    code = "blob_storage.request_invalid"
    message = "The storage request is not valid: {detail}"
    cause = "A request to the blob storage is not valid: {detail}."
    fix = (
        "Correct the request. Block blobs of Azure's storage SDK work, without leases, snapshots, tiers and tags. To "
        "list the files of the hubs: `birthmark hub file ls`"
    )
    detail: str
    blob_error: str = "InvalidInput"


class SasInvalidError(UnauthenticatedError):
    """The shared access signature of a storage request is not valid."""

    code = "blob_storage.sas_invalid"
    message = "The shared access signature {reason}"
    cause = "A request to the blob storage was rejected: its shared access signature {reason}."
    fix = (
        "Have the device begin a new file upload. For other clients, issue a new signature: `birthmark hub file sas "
        "uploads`"
    )
    reason: str


def refused(detail: str, blob_error: str) -> BlobRequestInvalidError:
    """Return the error for a request that is not valid, with the storage error code."""
    return BlobRequestInvalidError(detail=detail, blob_error=blob_error)


def check_block_sizes(count: int, size: int) -> None:
    """Check the blocks of a blob with `size` bytes. Raise `BlobRequestInvalidError`."""
    if count > FEW_BLOCKS and size < count * LEAST_BLOCK_BYTES:
        detail = f"a list of more than {FEW_BLOCKS} blocks must have at least {LEAST_BLOCK_BYTES} bytes per block"
        raise refused(detail, "InvalidBlockList")


# Shared access signatures.


def format_sas(account: BlobAccount, claims: SasClaims) -> str:
    """Return a shared access signature as a URL query, without a question mark."""
    fields = {
        "sv": SAS_VERSION,
        "sr": "c" if claims.blob is None else "b",
        "si": claims.identifier,
        "se": claims.expires_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "sp": claims.permissions,
    }
    fields = {name: value for name, value in fields.items() if value}
    return urlencode(
        {**fields, "sig": _signature(account.keys[0], _signed_text(account.name, claims))}, quote_via=quote
    )


def parse_permissions(text: str) -> str:
    """Return the letters of permissions in the usual order. Raise `BlobRequestInvalidError`."""
    if not text or not set(text) <= _LETTERS:
        raise refused("permissions are letters of racwdl", "InvalidInput")
    return "".join(one.value for one in SasPermission if one.value in text)


def parse_sas(
    account: BlobAccount, container: str, blob: str | None, query: Mapping[str, str], now: datetime
) -> SasClaims:
    """Return the claims of the signature in a query for a container or blob. Raise `SasInvalidError`."""
    if not query.get("sig"):
        raise SasInvalidError(reason="is missing")
    end, letters, kind = query.get("se", ""), query.get("sp", ""), query.get("sr", "")
    is_formed = _TIME.fullmatch(end) and letters and set(letters) <= _LETTERS and query.get("sv") == SAS_VERSION
    if not is_formed or kind not in {"b", "c"}:
        raise SasInvalidError(reason="was not issued by this server")
    try:
        expires_at = datetime.fromisoformat(end)
    except ValueError as error:
        raise SasInvalidError(reason="was not issued by this server") from error
    claims = SasClaims(container, letters, expires_at, blob if kind == "b" else None, query.get("si", ""))
    if kind == "b" and blob is None:
        raise SasInvalidError(reason="was issued for one blob, not for its container")
    signature, text = query["sig"].encode(errors="replace"), _signed_text(account.name, claims)
    if not any(hmac.compare_digest(signature, _signature(key, text).encode()) for key in account.keys):
        raise SasInvalidError(reason="was not issued by this server for this resource, or was changed")
    if now >= expires_at:
        raise SasInvalidError(reason="has expired")
    return claims


def _signed_text(account: str, claims: SasClaims) -> bytes:
    kind, name = ("c", "") if claims.blob is None else ("b", claims.blob)
    end = claims.expires_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    fields = (SAS_VERSION, kind, account, claims.container, name, claims.identifier, end, claims.permissions)
    return "\n".join(fields).encode(errors="surrogatepass")


def _signature(key: bytes, text: bytes) -> str:
    return base64.b64encode(hmac.digest(key, b"birthmark blob sas\0" + text, sha256)).decode()


# Headers and parameters.


def check_known(headers: Iterable[str], parameters: Iterable[str], served: frozenset[str]) -> None:
    """Raise `BlobRequestInvalidError` for a storage header or parameter that this operation would ignore."""
    for name in headers:
        if name.startswith("x-ms-") and name not in _KNOWN_HEADERS and not name.startswith(_METADATA):
            raise refused(f"the header {name[:80]} is not supported", "UnsupportedHeader")
    for name in parameters:
        if name not in _KNOWN_PARAMETERS and name not in served:
            raise refused(f"the query parameter {name[:80]} is not supported", "UnsupportedQueryParameter")


def parse_metadata(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the metadata in a request's headers, names in lower case. Raise `BlobRequestInvalidError`."""
    found = {name.removeprefix(_METADATA): value for name, value in headers.items() if name.startswith(_METADATA)}
    if any(_METADATA_NAME.fullmatch(name) is None for name in found):
        raise refused("a metadata name has letters, digits and underscores, with no digit first", "InvalidMetadata")
    if any(not value.isascii() or not value.isprintable() for value in found.values()):
        raise refused("a metadata value has printable ASCII characters", "InvalidMetadata")
    if sum(len(name) + len(value) for name, value in found.items()) > MAX_METADATA_BYTES:
        raise refused(f"the metadata has more than {MAX_METADATA_BYTES} bytes", "MetadataTooLarge")
    return found


def parse_content_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers to store with a blob. Raise `BlobRequestInvalidError`."""
    found = {name: headers[sent] for sent, name in CONTENT_HEADERS.items() if headers.get(sent)}
    if any(
        not value.isascii() or not value.isprintable() or len(value) > _MAX_HEADER_CHARS for value in found.values()
    ):
        raise refused(
            f"a content header has up to {_MAX_HEADER_CHARS} printable ASCII characters", "InvalidHeaderValue"
        )
    if "content-md5" in found:
        parse_digest(found["content-md5"], 16, "x-ms-blob-content-md5", "InvalidMd5")
    return found


def parse_digest(text: str, size: int, header: str, blob_error: str) -> bytes:
    """Return the digest in a header. Raise `BlobRequestInvalidError`."""
    try:
        found = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise refused(f"{header} is not base64", blob_error) from error
    if len(found) != size:
        raise refused(f"{header} must have {size} bytes", blob_error)
    return found


def parse_block_id(text: str) -> str:
    """Return a block ID. Raise `BlobRequestInvalidError`."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise refused("blockid is not base64", "InvalidQueryParameterValue") from error
    if not 1 <= len(raw) <= _MAX_BLOCK_ID_BYTES:
        raise refused(f"blockid has 1 to {_MAX_BLOCK_ID_BYTES} bytes", "InvalidQueryParameterValue")
    return base64.b64encode(raw).decode()


@dataclass(frozen=True, slots=True)
class BlockReference:
    """An item of a block list: `Latest`, `Committed` or `Uncommitted`, and the block's ID."""

    source: str
    block_id: str


def parse_block_list(body: bytes) -> Sequence[BlockReference]:
    """Return the items of a block list. Raise `BlobRequestInvalidError`."""
    text = body.removeprefix(codecs.BOM_UTF8).strip()
    if text.startswith(b"<?xml"):
        text = text.partition(b"?>")[2].lstrip()
    is_list = text.startswith(b"<BlockList>") and text.endswith(b"</BlockList>")
    if len(body) > MAX_BLOCK_LIST_BYTES or not (is_list or text in {b"<BlockList/>", b"<BlockList />"}):
        raise refused("the body is not a block list", "InvalidXmlDocument")
    text = text[len(b"<BlockList>") : -len(b"</BlockList>")].strip() if is_list else b""
    items: list[BlockReference] = []
    position = 0
    while position < len(text):
        if (item := _ITEM.match(text, position)) is None:
            raise refused("the block list has an item that is not a block", "InvalidXmlDocument")
        items.append(BlockReference(item[1].decode(), parse_block_id(item[2].decode())))
        if len(items) > MAX_BLOCKS:
            raise refused(f"a blob has at most {MAX_BLOCKS} blocks", "BlockListTooLong")
        position = item.end()
    return items


# Responses.


def http_date(moment: datetime) -> str:
    """Return a time as in `Last-Modified`."""
    return format_datetime(moment.astimezone(UTC), usegmt=True)


def blob_headers(blob: StoredBlob) -> dict[str, str]:
    """Return the headers that describe a blob."""
    return {
        "content-type": "application/octet-stream",
        **blob.headers,
        **{f"{_METADATA}{name}": value for name, value in blob.metadata.items()},
        "etag": blob.etag,
        "last-modified": http_date(blob.modified_at),
        "x-ms-creation-time": http_date(blob.created_at),
        "x-ms-blob-type": "BlockBlob",
        "x-ms-lease-status": "unlocked",
        "x-ms-lease-state": "available",
        "x-ms-server-encrypted": "false",
        "accept-ranges": "bytes",
    }


def render_error(blob_error: str, message: str) -> bytes:
    """Return the body of an error response."""
    text = f"<Error><Code>{escape(blob_error)}</Code><Message>{_xml_text(message)}</Message></Error>"
    return f'<?xml version="1.0" encoding="utf-8"?>{text}'.encode()


@dataclass(frozen=True, slots=True)
class ListRequest:
    """Parameters of a list request: `marker` is the last name of the page before."""

    prefix: str = ""
    marker: str = ""
    limit: int = 5000
    with_metadata: bool = False


def list_parts(container: str, request: ListRequest, blobs: Sequence[StoredBlob], next_marker: str) -> Iterator[str]:
    """Yield the body of a list response; each blob is a part."""
    yield '<?xml version="1.0" encoding="utf-8"?>'
    yield f"<EnumerationResults ContainerName={quoteattr(container)}>"
    yield f"<Prefix>{_xml_text(request.prefix)}</Prefix><Marker>{_xml_text(request.marker)}</Marker>"
    yield f"<MaxResults>{request.limit}</MaxResults><Blobs>"
    yield from (_xml_blob(one, with_metadata=request.with_metadata) for one in blobs)
    yield f"</Blobs><NextMarker>{_xml_text(next_marker)}</NextMarker></EnumerationResults>"


_NOT_XML = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_XML_NAMES = {
    "content-type": "Content-Type",
    "content-encoding": "Content-Encoding",
    "content-language": "Content-Language",
    "content-disposition": "Content-Disposition",
    "cache-control": "Cache-Control",
    "content-md5": "Content-MD5",
}


def _xml_blob(blob: StoredBlob, *, with_metadata: bool) -> str:
    properties = {
        "Creation-Time": http_date(blob.created_at),
        "Last-Modified": http_date(blob.modified_at),
        "Etag": blob.etag,
        "Content-Length": str(blob.size),
        "Content-Type": "application/octet-stream",
        **{_XML_NAMES[name]: value for name, value in blob.headers.items()},
        "BlobType": "BlockBlob",
        "LeaseStatus": "unlocked",
        "LeaseState": "available",
        "ServerEncrypted": "false",
    }
    text = "".join(f"<{name}>{_xml_text(value)}</{name}>" for name, value in properties.items())
    metadata = ""
    if with_metadata:
        pairs = (f"<{name}>{_xml_text(value)}</{name}>" for name, value in blob.metadata.items())
        metadata = f"<Metadata>{''.join(pairs)}</Metadata>"
    return f"<Blob><Name>{_xml_text(blob.name)}</Name><Properties>{text}</Properties>{metadata}</Blob>"


def _xml_text(text: str) -> str:
    """Return text for XML; characters that XML 1.0 does not have become question marks."""
    return escape(_NOT_XML.sub("?", text))
