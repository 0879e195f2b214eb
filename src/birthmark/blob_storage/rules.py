"""Decisions of the blob storage: names, permissions, conditions, block lists, ranges."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

from birthmark.blob_storage.model import SasClaims, SasPermission, StoredBlob, UncommittedBlock
from birthmark.blob_storage.wire import BlockReference, refused
from birthmark.errors import ConflictError, ForbiddenError, InvalidRequestError, NotFoundError

MAX_NAME_BYTES = 1024
_CONTAINER = re.compile(r"[a-z0-9](?:-?[a-z0-9]){2,62}")
_MAX_CONTAINER_CHARS = 63
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{0,18})")
_SHOWN = 200


class BlobNotFoundError(NotFoundError):
    """The blob does not exist."""

    code = "blob_storage.blob_not_found"
    message = "The blob {name} does not exist"
    cause = "The container {container} of hub {hub} has no blob {name}."
    fix = "List the hub's files: `birthmark hub file ls --hub {hub}`"
    hub: str
    container: str
    name: str


class ContainerNotFoundError(NotFoundError):
    """The container does not exist."""

    code = "blob_storage.container_not_found"
    message = "The container {container} does not exist"
    cause = "Hub {hub} has no storage container {container}."
    fix = (
        "Create the container, and issue a signature for it: `birthmark hub file sas {container} --permissions rcwdl "
        "--create --hub {hub}`"
    )
    hub: str
    container: str


class ContainerExistsError(ConflictError):
    """The container already exists."""

    code = "blob_storage.container_exists"
    message = "The container {container} already exists"
    cause = "Hub {hub} already has the storage container {container}."
    fix = "Use the container. List its files: `birthmark hub file ls --hub {hub} --container {container}`"
    hub: str
    container: str


class BlobExistsError(ConflictError):
    """The blob already exists, and the request must not overwrite it."""

    code = "blob_storage.blob_exists"
    message = "The blob {name} already exists"
    cause = "The container {container} of hub {hub} has the blob {name}, and the request must not overwrite it."
    fix = "Choose another name, or allow overwriting. List the files: `birthmark hub file ls --hub {hub}`"
    hub: str
    container: str
    name: str


class ConditionNotMetError(ConflictError):
    """A condition of the storage request is not met."""

    code = "blob_storage.condition_not_met"
    message = "The condition {condition} is not met"
    cause = "The blob {name} in the container {container} of hub {hub} does not meet the condition {condition}."
    fix = "Read the blob again and repeat the request. List the files: `birthmark hub file ls --hub {hub}`"
    hub: str
    container: str
    name: str
    condition: str


class BlobAccessError(ForbiddenError):
    """The shared access signature does not permit the operation."""

    code = "blob_storage.permission_missing"
    message = "The shared access signature does not permit this operation"
    cause = "A storage request needs the permission {permission}, and its signature has {permissions}."
    fix = "Issue a signature with the permission: `birthmark hub file sas uploads --permissions {permission}`"
    permission: str
    permissions: str


class BlockListInvalidError(InvalidRequestError):
    """The block list names a block that does not exist."""

    code = "blob_storage.block_list_invalid"
    message = "The block list names a block that does not exist"
    cause = "The block list of blob {name} in hub {hub} names the block {block_id}, which was not uploaded or expired."
    fix = "Upload all blocks of the file again. List the files: `birthmark hub file ls --hub {hub}`"
    hub: str
    name: str
    block_id: str


class RangeInvalidError(InvalidRequestError):
    """The requested range is outside the blob."""

    code = "blob_storage.range_invalid"
    message = "The requested range is outside the blob of {size} bytes"
    cause = "A storage request asks for a range of the blob {name} that begins after its {size} bytes."
    fix = "Request a range within the file. List the files with their sizes: `birthmark hub file ls --hub {hub}`"
    hub: str
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class BlobPath:
    """A blob's or a container's place: account, container and blob name."""

    account: str
    container: str
    name: str = ""

    @property
    def facts(self) -> Mapping[str, str]:
        """Return the facts for errors."""
        return {"hub": self.account, "container": self.container[:_SHOWN], "name": self.name[:_SHOWN]}


def is_container_name(name: str) -> bool:
    """Return whether a container name is valid."""
    return len(name) <= _MAX_CONTAINER_CHARS and _CONTAINER.fullmatch(name) is not None


def find_name_error(name: str) -> str | None:
    """Return why a blob name is not valid, or None. A URL may not change it, so it has no dot segments."""
    segments = name.split("/")
    if not name or len(name.encode(errors="surrogatepass")) > MAX_NAME_BYTES:
        return f"it does not have 1 to {MAX_NAME_BYTES} bytes in UTF-8"
    if not name.isprintable() or "\\" in name:
        return "it has a backslash or a character that is not printable"
    if not {"", ".", ".."}.isdisjoint(segments):
        return "it has an empty segment or a dot segment"
    return None


def check_path(path: BlobPath) -> None:
    """Raise `BlobRequestInvalidError` for an invalid container or blob name."""
    if not is_container_name(path.container):
        raise refused("the container name has 3 to 63 lowercase letters, digits and hyphens", "InvalidResourceName")
    if path.name and (problem := find_name_error(path.name)) is not None:
        raise refused(f"the blob name is not valid: {problem}", "InvalidResourceName")


def check_permission(claims: SasClaims, *allowed: SasPermission) -> None:
    """Raise `BlobAccessError` unless the signature has one of the permissions."""
    if not any(one.value in claims.permissions for one in allowed):
        raise BlobAccessError(permission=allowed[0].value, permissions=claims.permissions)


@dataclass(frozen=True, slots=True)
class BlobConditions:
    """Conditional headers of a request."""

    if_match: str = ""
    if_none_match: str = ""
    if_modified_since: str = ""
    if_unmodified_since: str = ""


def _time_of(text: str, header: str) -> datetime:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError) as error:
        raise refused(f"{header} is not an HTTP date", "InvalidHeaderValue") from error
    if found.tzinfo is None:
        raise refused(f"{header} is not an HTTP date", "InvalidHeaderValue")
    return found


def find_unmet_condition(conditions: BlobConditions, blob: StoredBlob | None) -> str | None:
    """Return the header whose condition a blob does not meet, or None. Raise `BlobRequestInvalidError`."""
    etag = "" if blob is None else blob.etag.strip('"')
    modified = None if blob is None else blob.modified_at.replace(microsecond=0)
    if conditions.if_match and (blob is None or conditions.if_match.strip('"') not in {"*", etag}):
        return "If-Match"
    if conditions.if_none_match and blob is not None and conditions.if_none_match.strip('"') in {"*", etag}:
        return "If-None-Match"
    if conditions.if_modified_since:
        since = _time_of(conditions.if_modified_since, "If-Modified-Since")
        if modified is not None and modified <= since:
            return "If-Modified-Since"
    if conditions.if_unmodified_since:
        since = _time_of(conditions.if_unmodified_since, "If-Unmodified-Since")
        if modified is not None and modified > since:
            return "If-Unmodified-Since"
    return None


def check_write_conditions(path: BlobPath, conditions: BlobConditions, blob: StoredBlob | None) -> None:
    """Raise `BlobExistsError` or `ConditionNotMetError` if a blob may not be written."""
    unmet = find_unmet_condition(conditions, blob)
    if unmet == "If-None-Match" and conditions.if_none_match == "*":
        raise BlobExistsError(**path.facts)
    if unmet is not None:
        raise ConditionNotMetError(**path.facts, condition=unmet)


@dataclass(frozen=True, slots=True)
class BlobSegment:
    """A part of a file: the content of one block."""

    block_id: str
    file: str
    offset: int
    size: int


def resolve_block_list(
    path: BlobPath,
    references: Sequence[BlockReference],
    uncommitted: Sequence[UncommittedBlock],
    committed: Sequence[BlobSegment],
) -> Sequence[BlobSegment]:
    """Return the content that a block list selects. Raise `BlockListInvalidError`."""
    staged = {one.block_id: BlobSegment(one.block_id, one.file, 0, one.size) for one in uncommitted}
    present = {one.block_id: one for one in committed}
    sources = {"Latest": {**present, **staged}, "Uncommitted": staged, "Committed": present}
    found = []
    for one in references:
        if (segment := sources[one.source].get(one.block_id)) is None:
            raise BlockListInvalidError(hub=path.account, name=path.name[:_SHOWN], block_id=one.block_id)
        found.append(segment)
    return found


def parse_range(text: str, size: int) -> range | None:
    """Return the requested bytes; None for all of them, an empty range if it begins after the end."""
    if (found := _RANGE.fullmatch(text.strip())) is None:
        return None
    start, stop = int(found[1]), min(size, int(found[2]) + 1 if found[2] else size)
    if found[2] and int(found[2]) < start:
        return None
    return range(start, stop) if start < stop else range(0)
