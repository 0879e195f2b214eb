"""Containers and blobs: written to a file first, then committed with a condition, within the quotas."""

import asyncio
import base64
import contextlib
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, BinaryIO, Protocol, TypeVar
from weakref import WeakValueDictionary

from birthmark.blob_storage import store
from birthmark.blob_storage.model import (
    BlobAccount,
    BlobContainer,
    SasClaims,
    StorageQuotas,
    StorageUsage,
    StoredBlob,
    UncommittedBlock,
)
from birthmark.blob_storage.rules import (
    BlobConditions,
    BlobNotFoundError,
    BlobPath,
    BlobSegment,
    ConditionNotMetError,
    ContainerExistsError,
    ContainerNotFoundError,
    check_path,
    check_write_conditions,
    find_unmet_condition,
    resolve_block_list,
)
from birthmark.blob_storage.service.file_store import FileStore, StorageUnavailableError, StoredFile
from birthmark.blob_storage.wire import BlockReference, ListRequest, check_block_sizes
from birthmark.clock_and_entropy import Clock, Entropy, new_uuid
from birthmark.errors import (
    BirthmarkError,
    ChangedMeanwhileError,
    ConflictError,
    InvalidRequestError,
    PolicyError,
    ThrottledError,
)
from birthmark.store import Changes, Database, may_be_kept, retry_on_conflict
from birthmark.store.table_statements import MAX_LIST_VALUES, list_parameters

T = TypeVar("T")
ACCOUNT_USAGE = "/"
"""Owner of the usage of a complete account; no device ID has a slash."""
BLOCK_LIFE_H = 24
"""Hours until an uncommitted block is deleted."""
ORPHAN_AGE = timedelta(hours=6)
"""Age of a file without a row after which it is removed; longer than any request takes."""
MAX_WRITES, MAX_WRITES_OF_OWNER, MAX_READS = 2048, 32, 256
SWEEP_S = 60
_ORPHANS_EVERY = 360
_ATTEMPTS = 5
_RETRY_S = 5
_LAST = "\U0010ffff"
MAX_PAGE_CHARS, _PAGE_STEP = 512 * 1024, 50
"""Names, headers and metadata of a page in characters, and the number of blobs of one read."""


class StorageQuotaError(PolicyError):
    """The quota of the file storage is used up."""

    code = "blob_storage.quota_exceeded"
    message = "The file storage of {owner} is full"
    cause = "{owner} may store {max_files} files and {max_bytes} bytes in hub {hub}, and the file exceeds this quota."
    fix = "Delete files with the storage SDK, or raise the quota. List the files: `birthmark hub file ls --hub {hub}`"
    hub: str
    owner: str
    max_files: int
    max_bytes: int


class StorageBusyError(ThrottledError):
    """Too many concurrent transfers."""

    code = "blob_storage.busy"
    message = "Too many concurrent transfers"
    cause = "In hub {hub}, {owner} has {count} concurrent transfers of files or blocks (limit: {limit})."
    fix = "Retry when an upload has ended. List the hub's files: `birthmark hub file ls --hub {hub}`"
    hub: str
    owner: str
    count: int
    limit: int


class ContentDigestError(InvalidRequestError):
    """The content of a storage request does not match its digest."""

    code = "blob_storage.digest_mismatch"
    message = "The content does not match {header}"
    cause = "The content for the blob {name} in hub {hub} does not match the header {header}."
    fix = "Send the request again. List the files that are stored: `birthmark hub file ls --hub {hub}`"
    hub: str
    name: str
    header: str


@dataclass(frozen=True, slots=True)
class UploadGrant:
    """The open upload of a signature: whose quota it uses, and the guard that it is still open at a commit."""

    owner: str
    guard: Changes = field(default_factory=Changes)


class BlobAccounts(Protocol):
    """The accounts behind the endpoint."""

    def account_of(self, host: str) -> BlobAccount:
        """Return the account of a host name. Raise `NotFoundError`."""
        ...

    async def find_upload(self, account: str, claims: SasClaims) -> UploadGrant:
        """Return the open upload that a signature identifies. Raise `SasInvalidError` if it has ended."""
        ...


@dataclass(frozen=True, slots=True)
class WriteScope:
    """Who writes where: the owner's quota, the conditions, and what must still hold at the commit."""

    path: BlobPath
    owner: str = ""
    conditions: BlobConditions = field(default_factory=BlobConditions)
    guard: Changes = field(default_factory=Changes)


@dataclass(frozen=True, slots=True)
class BlobContent:
    """What a write stores: the stream, its expected digests, and the blob's headers and metadata."""

    pieces: AsyncIterator[bytes]
    md5: bytes | None = None
    crc64: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


class BlobStorage:
    """Containers and blobs of all accounts."""

    def __init__(
        self, database: Database, clock: Clock, entropy: Entropy, files: FileStore, quotas: StorageQuotas
    ) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._files = files
        self.quotas = quotas
        self._writing: Counter[tuple[str, str]] = Counter()
        self._pending: Counter[tuple[str, str]] = Counter()
        self._joining: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._reading: Counter[str] = Counter()

    def request_id(self) -> str:
        """Return the ID of a request."""
        return new_uuid(self._entropy)

    def now(self) -> datetime:
        """Return the time that counts for signatures."""
        return self._clock.now()

    # Containers.

    async def create_container(self, account: str, name: str) -> BlobContainer:
        """Create a container. Raise `ContainerExistsError`, `BlobRequestInvalidError`."""
        check_path(BlobPath(account, name))
        made = BlobContainer(account, name, self._etag(), self._clock.now())
        try:
            await self._database.commit(Changes().run(store.ADD_CONTAINER, **store.CONTAINERS.row(made)))
        except ConflictError as error:
            raise ContainerExistsError(hub=account, container=name) from error
        return made

    def ensuring(self, account: str, name: str) -> Changes:
        """Return the changes that create a container unless it exists."""
        made = BlobContainer(account, name, self._etag(), self._clock.now())
        return Changes().run(store.ENSURE_CONTAINER, **store.CONTAINERS.row(made))

    async def container(self, account: str, name: str) -> BlobContainer:
        """Return a container. Raise `ContainerNotFoundError`, `BlobRequestInvalidError`."""
        check_path(BlobPath(account, name))
        row = await self._database.one(store.GET_CONTAINER, account=account, name=name)
        if row is None:
            raise ContainerNotFoundError(hub=account, container=name)
        return store.CONTAINERS.of(row)

    async def containers(self, account: str) -> Sequence[BlobContainer]:
        """Return the containers of an account, at most 1000."""
        return [store.CONTAINERS.of(row) for row in await self._database.all(store.LIST_CONTAINERS, account=account)]

    # Reads.

    async def find(self, path: BlobPath) -> StoredBlob | None:
        """Return a blob, or None."""
        key = {"account": path.account, "container": path.container, "name": path.name}
        row = await self._database.one(store.GET_BLOB, **key)
        return None if row is None else store.BLOBS.of(row)

    async def get(self, path: BlobPath) -> StoredBlob:
        """Return a blob. Raise `BlobNotFoundError`, `ContainerNotFoundError`, `BlobRequestInvalidError`."""
        check_path(path)
        if (found := await self.find(path)) is None:
            await self.container(path.account, path.container)
            raise BlobNotFoundError(**path.facts)
        return found

    async def open(self, path: BlobPath, blob: StoredBlob) -> BinaryIO:
        """Return the open file of a blob, which the caller closes. Raise `ConditionNotMetError` if it was replaced.

        Raise `StorageUnavailableError` if the folder lacks it.
        """
        try:
            return await self._files.open(blob.file)
        except FileNotFoundError as error:
            if (await self.get(path)).file == blob.file:  # not in the restored folder
                raise StorageUnavailableError(folder=self._files.root, reason="it lacks a file") from error
            raise ConditionNotMetError(**path.facts, condition="unchanged") from error

    @contextlib.contextmanager
    def reading(self, path: BlobPath) -> Iterator[None]:
        """Count a concurrent download. Raise `StorageBusyError`."""
        if self._reading[path.account] >= MAX_READS:
            raise StorageBusyError(
                hub=path.account, owner="all clients", count=MAX_READS, limit=MAX_READS, retry_after_s=_RETRY_S
            )
        self._reading[path.account] += 1
        try:
            yield
        finally:
            self._reading[path.account] -= 1

    async def page(self, account: str, container: str, request: ListRequest) -> tuple[Sequence[StoredBlob], str]:
        """Return a page of blobs, without blocks, and the marker of the next one.

        Blobs with many headers and much metadata make shorter pages. Raise `ContainerNotFoundError`.
        """
        await self.container(account, container)
        place = {"account": account, "container": container, "prefix": request.prefix}
        place |= {"beyond": request.prefix + _LAST}
        found: list[StoredBlob] = []
        marker, chars = request.marker, 0
        while len(found) < request.limit and chars < MAX_PAGE_CHARS:
            step = min(_PAGE_STEP, request.limit - len(found))
            rows = await self._database.all(store.BLOBS_PAGE, **place, after=marker, limit=step)
            found += (some := [store.BLOBS.of({**row, "blocks": "[]"}) for row in rows])
            if len(some) < step:
                return found, ""
            marker, chars = found[-1].name, chars + sum(map(_chars_of, some))
        has_more = await self._database.all(store.BLOBS_PAGE, **place, after=marker, limit=1)
        return found, marker if has_more else ""

    # Writes.

    async def put(self, scope: WriteScope, content: BlobContent) -> StoredBlob:
        """Store a blob from a stream. Raise the errors of conditions, quotas and digests."""
        known = await self._precheck(scope)
        replaced_size = known.size if known is not None and known.owner == scope.owner else 0
        stored = await self._receive(scope, content, replaced_size)
        return await self._commit_blob(scope, stored, content, "[]", [])

    async def put_block(self, scope: WriteScope, block_id: str, content: BlobContent, expires_in: timedelta) -> None:
        """Store a block that a block list may commit. Raise the errors of quotas and digests."""
        check_path(scope.path)
        await self.container(scope.path.account, scope.path.container)
        stored = await self._receive(scope, content)

        async def decide() -> str | None:
            key = {**_key(scope.path), "block_id": block_id}
            row = await self._database.one(store.GET_BLOCK, **key)
            known = None if row is None else store.BLOCKS.of(row)
            now = self._clock.micros()
            life = min(expires_in, timedelta(hours=BLOCK_LIFE_H)) // timedelta(microseconds=1)
            block = UncommittedBlock(
                **key, owner=scope.owner, file=stored.name, size=stored.size, staged_at=now, expires_at=now + life
            )
            changes = Changes().merge(scope.guard)
            if known is not None:
                changes.run(store.REMOVE_BLOCK, expect=1, **key, file=known.file)
            changes.run(store.ADD_BLOCK, **store.BLOCKS.row(block))
            removed = [] if known is None else [(known.owner, known.size)]
            await self._commit(
                changes.merge(self._usage_changes(scope, _deltas([(scope.owner, stored.size)], removed)))
            )
            return None if known is None else known.file

        replaced = await self._or_discard(stored, decide)
        await self._files.remove([] if replaced is None else [replaced])

    async def put_block_list(
        self, scope: WriteScope, references: Sequence[BlockReference], content: BlobContent
    ) -> StoredBlob:
        """Commit blocks as a blob. Raise `BlockListInvalidError`, and the errors of conditions and quotas."""
        blob = await self._precheck(scope)
        rows = await self._database.all(store.BLOCKS_OF_BLOB, **_key(scope.path))
        staged = [store.BLOCKS.of(row) for row in rows]
        segments = resolve_block_list(scope.path, references, staged, [] if blob is None else _segments_of(blob))
        room = await self._room(scope) + sum(one.size for one in staged)
        size = sum(one.size for one in segments)
        check_block_sizes(len(segments), size)
        with self._slot(scope) as key:  # concurrent lists of the same blocks count together
            self._pending[key] += size
            try:
                if self._pending[key] > room:
                    raise self._full(scope, scope.owner or ACCOUNT_USAGE)
                try:
                    async with self._joining.setdefault(key, asyncio.Lock()):
                        stored = await self._files.join(segments)
                except FileNotFoundError as error:  # committed or replaced since it was read
                    raise ConditionNotMetError(**scope.path.facts, condition="blocks") from error
                layout = json.dumps([[one.block_id, one.size] for one in segments])
                return await self._commit_blob(scope, stored, content, layout, staged)
            finally:
                self._pending[key] -= size

    async def set_metadata(self, scope: WriteScope, metadata: dict[str, str]) -> StoredBlob:
        """Replace the metadata of a blob. Raise `BlobNotFoundError`, and the errors of conditions."""

        async def decide() -> StoredBlob:
            blob = await self.get(scope.path)
            check_conditions(scope.path, scope.conditions, blob)
            made = replace(blob, metadata=metadata, etag=self._etag(), modified_at=self._clock.now())
            await self._commit(Changes().merge(scope.guard).merge(_changing(blob, made)))
            return made

        return await retry_on_conflict(decide, attempts=_ATTEMPTS)

    async def delete(self, scope: WriteScope) -> None:
        """Delete a blob. Raise `BlobNotFoundError`, and the errors of conditions."""

        async def decide() -> StoredBlob:
            blob = await self.get(scope.path)
            check_conditions(scope.path, scope.conditions, blob)
            changes = Changes().merge(scope.guard).run(store.REMOVE_BLOB, expect=1, **_key(scope.path), etag=blob.etag)
            removed = self._usage_changes(scope, _deltas([], [(blob.owner, blob.size)]))
            await self._commit(changes.merge(removed))
            return blob

        await self._files.remove([(await retry_on_conflict(decide, attempts=_ATTEMPTS)).file])

    async def drop_blocks(self, path: BlobPath) -> None:
        """Remove the uncommitted blocks of a blob."""
        rows = await self._database.all(store.BLOCKS_OF_BLOB, **_key(path))
        await self._drop([store.BLOCKS.of(row) for row in rows])

    # Background.

    async def run_cleanup_loop(self) -> None:
        """Remove expired blocks, and files without a row, forever; at start and by a deadline."""
        for count in itertools.count():
            await self.remove_expired()
            if count % _ORPHANS_EVERY == 0:
                await self.remove_orphans()
            await asyncio.sleep(SWEEP_S)

    async def remove_expired(self) -> None:
        """Remove the uncommitted blocks that have expired."""
        while rows := await self._database.all(store.EXPIRED_BLOCKS, now=self._clock.micros()):
            await self._drop([store.BLOCKS.of(row) for row in rows])

    async def remove_orphans(self) -> int:
        """Remove files to which no row refers, as after a kill; return their number."""
        return await self._files.remove_orphans(
            (self._clock.now() - ORPHAN_AGE).timestamp(), self._known_files, MAX_LIST_VALUES
        )

    async def _known_files(self, names: Sequence[str]) -> frozenset[str]:
        some = list_parameters(names)
        statements = (store.BLOBS_WITH_FILES, store.BLOCKS_WITH_FILES)
        rows = [row for one in statements for row in await self._database.all(one, **some)]
        return frozenset(str(row["file"]) for row in rows)

    async def _drop(self, blocks: Sequence[UncommittedBlock]) -> None:
        for one in blocks:
            path = BlobPath(one.account, one.container, one.name)
            changes = Changes().run(store.REMOVE_BLOCK, expect=1, **_key(path), block_id=one.block_id, file=one.file)
            removed = self._usage_changes(WriteScope(path, one.owner), _deltas([], [(one.owner, one.size)]))
            with contextlib.suppress(ChangedMeanwhileError):  # committed or replaced
                await self._database.commit(changes.merge(removed))
                await self._files.remove([one.file])

    # Inside.

    async def _precheck(self, scope: WriteScope) -> StoredBlob | None:
        """Refuse a write before its body is read; the commit decides again."""
        check_path(scope.path)
        blob = await self.find(scope.path)
        if blob is None:
            await self.container(scope.path.account, scope.path.container)
        check_write_conditions(scope.path, scope.conditions, blob)
        return blob

    async def _receive(self, scope: WriteScope, content: BlobContent, replaced_size: int = 0) -> StoredFile:
        """Write a stream to a file within the quota. Raise `StorageQuotaError`, `ContentDigestError`."""
        room = await self._room(scope) + replaced_size
        with self._slot(scope) as key:
            received = 0

            def admit(size: int) -> None:
                nonlocal received
                received += size
                self._pending[key] += size
                if self._pending[key] > room:
                    raise self._full(scope, scope.owner or ACCOUNT_USAGE)

            try:
                stored = await self._files.write(content.pieces, with_crc64=content.crc64 is not None, admit=admit)
            finally:
                self._pending[key] -= received
        digests = (("Content-MD5", content.md5, stored.md5), ("x-ms-content-crc64", content.crc64, stored.crc64))
        for header, expected, found in digests:
            if expected is not None and expected != found:
                await self._files.remove([stored.name])
                raise ContentDigestError(hub=scope.path.account, name=scope.path.facts["name"], header=header)
        return stored

    @contextlib.contextmanager
    def _slot(self, scope: WriteScope) -> Iterator[tuple[str, str]]:
        key = (scope.path.account, scope.owner)
        count, total = self._writing[key], self._writing.total()
        # Each device has one slot that others cannot use up; operators do not share theirs with devices.
        if count >= MAX_WRITES_OF_OWNER or (scope.owner and count and total >= MAX_WRITES):
            limit = MAX_WRITES_OF_OWNER if count >= MAX_WRITES_OF_OWNER else MAX_WRITES
            raise StorageBusyError(
                hub=scope.path.account,
                owner=f"device {scope.owner}" if scope.owner else "an operator",
                count=count,
                limit=limit,
                retry_after_s=_RETRY_S,
            )
        self._writing[key] += 1
        try:
            yield key
        finally:
            self._writing[key] -= 1
            if not self._writing[key]:
                del self._writing[key], self._pending[key]

    async def _commit_blob(
        self,
        scope: WriteScope,
        stored: StoredFile,
        content: BlobContent,
        layout: str,
        staged: Sequence[UncommittedBlock],
    ) -> StoredBlob:
        """Commit a blob whose file is on disk; remove the files that it replaces."""
        headers = dict(content.headers)
        if stored.md5 and "content-md5" not in headers:
            headers["content-md5"] = base64.b64encode(stored.md5).decode()

        async def decide() -> tuple[StoredBlob, list[str]]:
            known, now = await self.find(scope.path), self._clock.now()
            check_write_conditions(scope.path, scope.conditions, known)
            blob = StoredBlob(
                **_key(scope.path),
                owner=scope.owner,
                file=stored.name,
                size=stored.size,
                etag=self._etag(),
                created_at=now if known is None else known.created_at,
                modified_at=now,
                headers=headers,
                metadata=content.metadata,
                blocks=layout,
            )
            account = scope.path.account
            changes = Changes().merge(scope.guard)
            if known is None:
                key: dict[str, Any] = {"key_account": account, "key_name": scope.path.container}
                absent = ContainerNotFoundError(hub=account, container=scope.path.container)
                changes.run(store.CONTAINER_IS_THERE, expect=1, otherwise=absent, **key)
                changes.run(store.ADD_BLOB, **store.BLOBS.row(blob))
            else:
                changes.merge(_changing(known, blob))
            if staged:
                newest = max(one.staged_at for one in staged)
                changes.run(store.REMOVE_BLOCKS, expect=len(staged), **_key(scope.path), newest=newest)
            replaced: list[UncommittedBlock | StoredBlob] = [*staged, *([] if known is None else [known])]
            removed = [(one.owner, one.size) for one in replaced]
            await self._commit(
                changes.merge(self._usage_changes(scope, _deltas([(scope.owner, stored.size)], removed)))
            )
            return blob, [one.file for one in replaced]

        blob, replaced = await self._or_discard(stored, decide)
        await self._files.remove(replaced)
        return blob

    async def _or_discard(self, stored: StoredFile, decide: Callable[[], Awaitable[T]]) -> T:
        """Commit with retries; remove the new file if the commit failed for certain."""
        try:
            return await retry_on_conflict(decide, attempts=_ATTEMPTS)
        except BirthmarkError as error:
            if not may_be_kept(error):  # otherwise its row may exist
                await self._files.remove([stored.name])
            raise

    async def _commit(self, changes: Changes) -> None:
        """Commit; a row that another request added counts as changed."""
        try:
            await self._database.commit(changes)
        except ConflictError as error:
            if type(error) is ConflictError:
                raise ChangedMeanwhileError from error
            raise

    def _etag(self) -> str:
        return f'"0x{self._entropy.token(8).hex().upper()}"'

    # Quotas.

    def _owners(self, scope: WriteScope) -> list[tuple[str, int, int]]:
        """Return the owners whose quota a write uses, with their limits on files and bytes: the account first."""
        limits = self.quotas
        found = [(ACCOUNT_USAGE, limits.hub_files, limits.hub_bytes)]
        return [*found, (scope.owner, limits.device_files, limits.device_bytes)] if scope.owner else found

    async def _bytes_of(self, account: str, owner: str) -> int:
        row = await self._database.one(store.GET_USAGE, account=account, owner=owner)
        return 0 if row is None else int(row["bytes"])

    async def _room(self, scope: WriteScope) -> int:
        """Return how many bytes a write may add."""
        account = scope.path.account
        return min([limit - await self._bytes_of(account, owner) for owner, _, limit in self._owners(scope)])

    def _usage_changes(self, scope: WriteScope, deltas: Mapping[str, tuple[int, int]]) -> Changes:
        """Return the changes of the usage: files and bytes that each owner gains or loses, within the limits."""
        changes, account = Changes(), scope.path.account
        totals = sum(files for files, _ in deltas.values()), sum(size for _, size in deltas.values())
        limits = {owner: (files, size) for owner, files, size in self._owners(scope)}
        # The account's row first: it serializes commits of several workers, which could deadlock otherwise.
        for owner, (files, size) in [(ACCOUNT_USAGE, totals), *sorted((o, d) for o, d in deltas.items() if o)]:
            changes.run(store.ENSURE_USAGE, **store.USAGE.row(StorageUsage(account, owner, 0, 0)))
            key: dict[str, Any] = {"key_account": account, "key_owner": owner, "more_files": files, "more_bytes": size}
            if owner in limits and (files > 0 or size > 0):
                max_files, max_bytes = limits[owner]
                full = self._full(scope, owner)
                changes.run(store.USE, expect=1, otherwise=full, **key, max_files=max_files, max_bytes=max_bytes)
            else:
                changes.run(store.RELEASE, **key)
        return changes

    def _full(self, scope: WriteScope, owner: str) -> StorageQuotaError:
        files, size = next((files, size) for name, files, size in self._owners(scope) if name == owner)
        who = f"hub {scope.path.account}" if owner == ACCOUNT_USAGE else f"device {owner}"
        return StorageQuotaError(hub=scope.path.account, owner=who, max_files=files, max_bytes=size)


def _deltas(added: Iterable[tuple[str, int]], removed: Iterable[tuple[str, int]]) -> dict[str, tuple[int, int]]:
    """Return files and bytes that each owner gains, from (owner, size) of added and removed files."""
    found: dict[str, tuple[int, int]] = {}
    for sign, files in ((1, added), (-1, removed)):
        for owner, size in files:
            count, total = found.get(owner, (0, 0))
            found[owner] = (count + sign, total + sign * size)
    return found


def _key(path: BlobPath) -> dict[str, Any]:
    return {"account": path.account, "container": path.container, "name": path.name}


def _changing(known: StoredBlob, made: StoredBlob) -> Changes:
    row = store.BLOBS.row(made)
    key = {f"key_{name}": row.pop(name) for name in ("account", "container", "name")}
    return Changes().run(store.CHANGE_BLOB, expect=1, **row, **key, key_etag=known.etag)


def _chars_of(blob: StoredBlob) -> int:
    pairs = [*blob.headers.items(), *blob.metadata.items()]
    return len(blob.name) + sum(len(name) + len(value) for name, value in pairs)


def _segments_of(blob: StoredBlob) -> Sequence[BlobSegment]:
    found, offset = [], 0
    for block_id, size in json.loads(blob.blocks):
        found.append(BlobSegment(block_id, blob.file, offset, size))
        offset += size
    return found


def check_conditions(path: BlobPath, conditions: BlobConditions, blob: StoredBlob) -> None:
    """Raise `ConditionNotMetError` unless an existing blob meets the conditions."""
    if (unmet := find_unmet_condition(conditions, blob)) is not None:
        raise ConditionNotMetError(**path.facts, condition=unmet)
