"""File uploads of devices: a signature for one blob, the end of the upload, and the notification of the service.

A device has few open uploads, each in a numbered slot, so that a conditional write enforces the limit for all workers.
"""

import asyncio
import contextlib
import hmac
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from birthmark.blob_storage.model import BlobAccount, SasClaims, SasPermission
from birthmark.blob_storage.rules import BlobPath, check_path, find_name_error
from birthmark.blob_storage.service import BlobStorage, UploadGrant
from birthmark.blob_storage.service.file_store import StorageUnavailableError
from birthmark.blob_storage.wire import ACCOUNT_PATH, SasInvalidError, format_sas, parse_permissions
from birthmark.broker.device_queue import DeviceQueues, enqueue_changes
from birthmark.broker.keyed_lock import KeyedLock
from birthmark.broker.rules.device_queue import DeviceQueueRules, QueuedMessage
from birthmark.clock_and_entropy import Clock, ClockStability, Entropy, new_uuid
from birthmark.errors import (
    BirthmarkError,
    ChangedMeanwhileError,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    ThrottledError,
)
from birthmark.iothub import store
from birthmark.iothub.model import Hub, space_of
from birthmark.iothub.service.hubs_and_authorization import Hubs
from birthmark.iothub.service.registry import guard_identity
from birthmark.iothub.wire import BodyInvalidError, registry_time
from birthmark.iothub.wire.times_and_body_validation import check_members
from birthmark.store import Changes, Database, from_micros, retry_on_conflict
from birthmark.store.time_ids import Numbers
from birthmark.untrusted_json_and_text import decode_json, read_json

UPLOADS_CONTAINER = "uploads"
"""Container for files of devices."""
NOTIFICATIONS = "/filenotifications"
"""Notification queue of the service: no device id has a slash."""
MAX_OPEN = 10
"""Maximum open uploads per device ("IoT Hub quotas and throttling")."""
NOTIFICATION_RULES = DeviceQueueRules(max_waiting=10_000, lock_s=60, max_deliveries=100)
NOTIFICATION_LIFE_S = 3600
SWEEP_S = 30
_PERMISSIONS = "cw"
_MICROS = 1_000_000
_ATTEMPTS = 8
_RETRY_S = 60
_KEY = b"birthmark file storage"
_SHOWN = 200


class FileNameInvalidError(InvalidRequestError):
    """The name of the file to upload is not valid."""

    code = "iothub.file_name_invalid"
    message = "The file name is not valid: {detail}"
    cause = "Device {device_id} asked to upload a file whose name is not valid: {detail}."
    fix = "Choose another file name. List the files of the hub: `birthmark hub file ls --hub {hub}`"
    hub: str
    device_id: str
    detail: str


class TooManyUploadsError(ThrottledError):
    """The device has too many open file uploads."""

    code = "iothub.too_many_uploads"
    message = "Device {device_id} has {limit} open file uploads, the maximum"
    cause = "Device {device_id} of hub {hub} began {limit} file uploads and reported the end of none of them."
    fix = "Report the end of each upload. To list the stored files: `birthmark hub file ls --hub {hub}`"
    hub: str
    device_id: str
    limit: int = MAX_OPEN


class UnknownUploadError(NotFoundError):
    """The device has no such open file upload."""

    code = "iothub.unknown_upload"
    message = "The file upload does not exist or has ended"
    cause = "Device {device_id} of hub {hub} reported the end of a file upload that does not exist, ended or expired."
    fix = "Begin a new upload. List the files that are stored: `birthmark hub file ls --hub {hub}`"
    hub: str
    device_id: str


class UploadNotStoredError(InvalidRequestError):
    """The device reported a file as uploaded that is not stored."""

    code = "iothub.upload_not_stored"
    message = "The file {name} was not uploaded"
    cause = "Device {device_id} of hub {hub} reported the file {name} as uploaded, but no data arrived."
    fix = "Upload the file before its end is reported. List the files: `birthmark hub file ls --hub {hub}`"
    hub: str
    device_id: str
    name: str


class UploadRequest(msgspec.Struct, rename="camel"):
    """Body of `POST /devices/{id}/files`."""

    blob_name: str


class UploadEnd(msgspec.Struct, rename="camel"):
    """Body of `POST /devices/{id}/files/notifications`."""

    correlation_id: str = ""
    is_success: bool = False
    status_code: int = 0
    status_description: str | None = None


def parse_upload(body: bytes) -> UploadRequest:
    """Return the request for an upload. Raise `BodyInvalidError`."""
    found = read_json(body, UploadRequest, BodyInvalidError)
    check_members(body, UploadRequest)
    return found


def parse_upload_end(body: bytes) -> UploadEnd:
    """Return the reported end of an upload. Raise `BodyInvalidError`."""
    found = read_json(body, UploadEnd, BodyInvalidError)
    check_members(body, UploadEnd)
    return found


class UploadTarget(NamedTuple):
    """Where a device uploads a file, with the signature for it."""

    correlation_id: str
    container: str
    blob: str
    sas: str

    def render(self, host: str) -> dict[str, str]:
        """Return the response for a hub's host name with its port."""
        return {
            "correlationId": self.correlation_id,
            "hostName": host,
            "containerName": f"{ACCOUNT_PATH}/{self.container}",
            "blobName": self.blob,
            "sasToken": f"?{self.sas}",
        }


class SignedContainer(NamedTuple):
    """A container with a signature for it."""

    container: str
    sas: str

    def url(self, host: str) -> str:
        """Return the URL for storage clients."""
        return f"https://{host}/{ACCOUNT_PATH}/{self.container}?{self.sas}"


@dataclass(frozen=True, slots=True)
class UploadSettings:
    """Lifetime of an upload, and whether the service is notified of its end."""

    ttl_s: int = 3600
    notifies: bool = True


def account_of(hub: Hub) -> BlobAccount:
    """Return the storage account of a hub; its keys are derived from those of the policy `iothubowner`."""
    return BlobAccount(hub.name, tuple(hmac.digest(key, _KEY, "sha256") for key in hub.policies["iothubowner"]))


class FileUploads:
    """File uploads of all hubs."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        entropy: Entropy,
        hubs: Hubs,
        *,
        storage: BlobStorage | None = None,
        settings: UploadSettings | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._hubs = hubs
        self._storage = storage
        self.settings = settings or UploadSettings()
        self._places = Numbers(database.sharing)
        self._turns: KeyedLock[tuple[str, str]] = KeyedLock()
        since = ClockStability(clock).since
        self.notifications = DeviceQueues(database, clock.micros, since, entropy, NOTIFICATION_RULES)

    @property
    def storage(self) -> BlobStorage | None:
        return self._storage

    def get_storage(self) -> BlobStorage:
        """Return the file storage. Raise `StorageUnavailableError`."""
        if self._storage is None:
            raise StorageUnavailableError(folder=Path("files"), reason="this program runs hubs without files")
        return self._storage

    def account_of(self, host: str) -> BlobAccount:
        """Return the storage account of a host name. Raise `UnknownHubError`."""
        return account_of(self._hubs.by_host(host))

    async def find_upload(self, account: str, claims: SasClaims) -> UploadGrant:
        """Return the open upload of a signature. Raise `SasInvalidError` if it has ended."""
        ended = SasInvalidError(reason="belongs to an upload that has ended")
        upload = await self._find(account, claims.identifier)
        if upload is None or upload.blob != claims.blob:
            raise ended
        row = await self._database.one(store.GET_DEVICE, hub=account, device_id=upload.device_id)
        if row is None or not row["enabled"] or row["created_at"] > upload.started_at:  # another one of that name
            raise ended
        key = {"key_hub": account, "key_correlation_id": upload.correlation_id}
        guard = Changes().run(store.UPLOAD_IS_OPEN, expect=1, otherwise=ended, **key)
        return UploadGrant(upload.device_id, guard.merge(guard_identity(account, upload.device_id)))

    async def begin(self, hub: Hub, device_id: str, name: str) -> UploadTarget:
        """Begin an upload. Raise `FileNameInvalidError`, `TooManyUploadsError`, `StorageUnavailableError`."""
        storage, blob = self.get_storage(), f"{device_id}/{name}"
        if (problem := find_name_error(blob)) is not None:
            raise FileNameInvalidError(hub=hub.name, device_id=device_id, detail=problem)

        async def decide() -> store.FileUpload:
            now, key = self._clock.micros(), {"hub": hub.name, "device_id": device_id}
            known = [store.UPLOADS.of(row) for row in await self._database.all(store.UPLOADS_OF_DEVICE, **key)]
            expired = [one for one in known if one.expires_at <= now]
            taken = {one.slot for one in known} - {one.slot for one in expired}
            slot = next((one for one in range(MAX_OPEN) if one not in taken), None)
            if slot is None:
                raise TooManyUploadsError(hub=hub.name, device_id=device_id, retry_after_s=_RETRY_S)
            upload = store.FileUpload(
                **key,
                slot=slot,
                correlation_id=new_uuid(self._entropy),
                blob=blob,
                started_at=now,
                expires_at=now + self.settings.ttl_s * _MICROS,
            )
            changes = guard_identity(hub.name, device_id)
            for one in expired:
                changes.run(store.END_UPLOAD, hub=hub.name, correlation_id=one.correlation_id)
            changes.run(store.ADD_UPLOAD, **store.UPLOADS.row(upload))
            await self._commit(changes.merge(storage.ensuring(hub.name, UPLOADS_CONTAINER)))
            return upload

        async with self._turns.lock((hub.name, device_id)):  # otherwise parallel requests conflict, and one wins
            upload = await retry_on_conflict(decide, attempts=_ATTEMPTS)
        expires = from_micros(upload.expires_at).replace(microsecond=0)
        claims = SasClaims(UPLOADS_CONTAINER, _PERMISSIONS, expires, blob, upload.correlation_id)
        return UploadTarget(upload.correlation_id, UPLOADS_CONTAINER, blob, format_sas(account_of(hub), claims))

    async def end(self, hub: Hub, device_id: str, end: UploadEnd, host: str) -> None:
        """End an upload, and notify the service of a stored file. Raise `UnknownUploadError`, `UploadNotStoredError`.

        Size and time are those of the stored file, whatever the device reports.
        """
        storage, unknown = self.get_storage(), UnknownUploadError(hub=hub.name, device_id=device_id)
        upload = await self._find(hub.name, end.correlation_id)
        if upload is None or upload.device_id != device_id:
            raise unknown
        path = BlobPath(hub.name, UPLOADS_CONTAINER, upload.blob)
        changes = Changes().run(
            store.END_UPLOAD, expect=1, otherwise=unknown, hub=hub.name, correlation_id=upload.correlation_id
        )
        if end.is_success:
            blob = await storage.find(path)
            if blob is None or blob.modified_at < from_micros(upload.started_at):
                raise UploadNotStoredError(hub=hub.name, device_id=device_id, name=upload.blob[:_SHOWN])
            if self.settings.notifies:
                record = {
                    "deviceId": device_id,
                    "blobUri": f"https://{host}/{ACCOUNT_PATH}/{UPLOADS_CONTAINER}/{quote(blob.name)}",
                    "blobName": blob.name,
                    "lastUpdatedTime": registry_time(blob.modified_at),
                    "blobSizeInBytes": blob.size,
                    "enqueuedTimeUtc": registry_time(self._clock.now()),
                }
                changes.merge(self._notifying(hub, record))
        await self._database.commit(changes)
        rows = await self._database.all(store.UPLOADS_OF_DEVICE, hub=hub.name, device_id=device_id)
        if not any(row["blob"] == upload.blob for row in rows):  # another open upload may need the blocks
            await storage.drop_blocks(path)

    async def sign_container(
        self, hub: Hub, container: str, permissions: str, lasts: timedelta, *, creates: bool = False, actor: str
    ) -> SignedContainer:
        """Issue a signature for a container, which is created if missing and `creates`.

        A missing container needs the permission to create it, but for that of uploads, which the first upload creates.
        Raise `BlobRequestInvalidError`, `ContainerNotFoundError`, `StorageUnavailableError`.
        """
        storage = self.get_storage()
        check_path(BlobPath(hub.name, container))
        letters = parse_permissions(permissions)
        claims = SasClaims(container, letters, self._clock.now() + lasts)
        changes = Changes().audit(actor, "iothub.file_sas", hub.name, container=container, permissions=letters)
        if creates:
            changes.merge(storage.ensuring(hub.name, container))
        elif container != UPLOADS_CONTAINER and SasPermission.CREATE.value not in letters:
            await storage.container(hub.name, container)
        await self._database.commit(changes)
        return SignedContainer(container, format_sas(account_of(hub), claims))

    def _notifying(self, hub: Hub, record: dict[str, Any]) -> Changes:
        now = self._clock.micros()
        body, ends_at = msgspec.json.encode(record), now + NOTIFICATION_LIFE_S * _MICROS
        message = QueuedMessage(self._places.next(now), new_uuid(self._entropy), body, now, ends_at)
        return enqueue_changes(space_of(hub.name), NOTIFICATIONS, message)

    def record_of(self, message: QueuedMessage) -> dict[str, Any]:
        """Return the notification in a queued message."""
        record: dict[str, Any] = decode_json(message.body)
        return record

    async def run_expiry_loop(self) -> None:
        """Remove expired uploads, and the oldest unread notifications above the limit, forever."""
        while True:
            await asyncio.sleep(SWEEP_S)
            with contextlib.suppress(BirthmarkError):  # the next run retries the rest
                await self._database.commit(Changes().run(store.REMOVE_EXPIRED_UPLOADS, now=self._clock.micros()))
                await self.notifications.trim(NOTIFICATIONS, NOTIFICATION_RULES.max_waiting)

    async def _find(self, hub: str, correlation_id: str) -> store.FileUpload | None:
        """Return an upload that is open, or None."""
        row = await self._database.one(store.GET_UPLOAD, hub=hub, correlation_id=correlation_id)
        found = None if row is None else store.UPLOADS.of(row)
        return None if found is None or found.expires_at <= self._clock.micros() else found

    async def _commit(self, changes: Changes) -> None:
        """Commit; a slot that another request took counts as changed."""
        try:
            await self._database.commit(changes)
        except ConflictError as error:
            if type(error) is ConflictError:
                raise ChangedMeanwhileError from error
            raise
