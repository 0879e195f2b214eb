"""Values of the blob storage: blobs, uncommitted blocks, access by signature."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class SasPermission(StrEnum):
    """A permission of a shared access signature, by its letter."""

    READ = "r"
    ADD = "a"
    CREATE = "c"
    WRITE = "w"
    DELETE = "d"
    LIST = "l"


@dataclass(frozen=True, slots=True)
class BlobAccount:
    """A storage account: the name of its hub, and the keys that sign access."""

    name: str
    keys: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SasClaims:
    """What a shared access signature grants: permissions on a container, or on one blob if `blob` is set."""

    container: str
    permissions: str
    expires_at: datetime
    blob: str | None = None
    identifier: str = ""
    """Identifier of the upload that the signature belongs to; it ends with the upload."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A block blob. `blocks` is the JSON of its blocks: `[[id, size], …]`."""

    account: str
    container: str
    name: str
    owner: str
    """Device whose quota it counts against; empty for a blob of an operator."""
    file: str
    size: int
    etag: str
    created_at: datetime
    modified_at: datetime
    headers: Mapping[str, str]
    metadata: Mapping[str, str]
    blocks: str = "[]"


@dataclass(frozen=True, slots=True)
class UncommittedBlock:
    """A block that no block list has committed yet."""

    account: str
    container: str
    name: str
    block_id: str
    owner: str
    file: str
    size: int
    staged_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class BlobContainer:
    """A container of blobs."""

    account: str
    name: str
    etag: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StorageUsage:
    """Files and bytes of an owner; the owner `/` is the account."""

    account: str
    owner: str
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class StorageQuotas:
    """Limits on files, with uncommitted blocks, and bytes of a device and of an account."""

    device_files: int = 2_000
    device_bytes: int = 1024**3
    hub_files: int = 100_000
    hub_bytes: int = 16 * 1024**3
