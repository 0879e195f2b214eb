"""Tables of the blob storage: containers, blobs, uncommitted blocks and usage."""

from sqlalchemy import Index, Table, bindparam, update

from birthmark.blob_storage.model import BlobContainer, StorageUsage, StoredBlob, UncommittedBlock
from birthmark.store import insert, metadata
from birthmark.store.compiled_statements import statement
from birthmark.store.device_name_prefix_index import ordered_text
from birthmark.store.plain_and_encrypted_column_types import number, text
from birthmark.store.row_mapper import RowMapper
from birthmark.store.table_statements import change, find, guard_exists, is_in_list, page, remove

CONTAINERS = RowMapper(BlobContainer)
containers = CONTAINERS.table("blob_containers", "account", "name")
ADD_CONTAINER = insert(containers)
ENSURE_CONTAINER = insert(containers, ignore_existing=True)
GET_CONTAINER = find(containers)
LIST_CONTAINERS = find(containers, "account", order=containers.c.name, limit=1000)
CONTAINER_IS_THERE = guard_exists(containers)

BLOBS = RowMapper(StoredBlob)
blobs = Table(
    "blobs",
    metadata,
    *(text(name, key=True) for name in ("account", "container")),
    ordered_text("name", key=True),
    *(text(name) for name in ("owner", "file")),
    number("size"),
    text("etag"),
    *(number(name) for name in ("created_at", "modified_at")),
    *(text(name) for name in ("headers", "metadata", "blocks")),
)
Index("blobs_file", blobs.c.file, unique=True)
ADD_BLOB = insert(blobs)
GET_BLOB = find(blobs)
CHANGE_BLOB = change(
    blobs,
    ("owner", "file", "size", "etag", "created_at", "modified_at", "headers", "metadata", "blocks"),
    *("account", "container", "name", "etag"),
)
REMOVE_BLOB = remove(blobs, "account", "container", "name", "etag")
BLOBS_PAGE = page(
    *(blobs, "name", "account", "container"),
    blobs.c.name >= bindparam("prefix"),
    blobs.c.name < bindparam("beyond"),
    of=[column.name for column in blobs.c if column.name != "blocks"],
)
"""A page of blobs without their blocks, which may have a megabyte per blob."""
BLOBS_WITH_FILES = find(blobs, is_in_list(blobs.c.file), of=("file",))

BLOCKS = RowMapper(UncommittedBlock)
blocks = BLOCKS.table("blob_blocks", "account", "container", "name", "block_id")
Index("blob_blocks_file", blocks.c.file, unique=True)
Index("blob_blocks_expiry", blocks.c.expires_at)
ADD_BLOCK = insert(blocks)
GET_BLOCK = find(blocks)
BLOCKS_OF_BLOB = find(blocks, "account", "container", "name")
REMOVE_BLOCK = remove(blocks, "account", "container", "name", "block_id", "file")
REMOVE_BLOCKS = remove(blocks, "account", "container", "name", blocks.c.staged_at <= bindparam("newest"))
EXPIRED_BLOCKS = find(blocks, blocks.c.expires_at <= bindparam("now"), limit=200)
BLOCKS_WITH_FILES = find(blocks, is_in_list(blocks.c.file), of=("file",))

USAGE = RowMapper(StorageUsage)
usage = USAGE.table("blob_usage", "account", "owner")
ENSURE_USAGE = insert(usage, ignore_existing=True)
GET_USAGE = find(usage)
_of_owner = (usage.c.account == bindparam("key_account"), usage.c.owner == bindparam("key_owner"))
_more = {
    "files": usage.c.files + bindparam("more_files", type_=usage.c.files.type),
    "bytes": usage.c.bytes + bindparam("more_bytes", type_=usage.c.bytes.type),
}
USE = statement(
    update(usage)
    .where(*_of_owner, _more["files"] <= bindparam("max_files"), _more["bytes"] <= bindparam("max_bytes"))
    .values(_more)
)
"""Add to the usage of an owner, within its limits."""
RELEASE = statement(update(usage).where(*_of_owner).values(_more))

DROP_ACCOUNT = tuple(remove(table, "account") for table in (containers, blobs, blocks, usage))
