"""Import and export of a hub's registry, one job at a time per hub, in the background.

An import stores its progress after each batch of lines, and which lines it tries before the batch. After a kill, a line
that was tried may already be applied, completely or in part. Its conflict with that change is then no error, and the
rest of the line is applied. An export writes its file in one piece, so that it starts again.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import islice
from typing import Any, BinaryIO

from birthmark.auth.permission_statements import Right
from birthmark.blob_storage.model import SasPermission
from birthmark.blob_storage.rules import BlobPath, check_permission, find_name_error
from birthmark.blob_storage.service import BlobContent, BlobStorage, WriteScope
from birthmark.blob_storage.wire import parse_sas
from birthmark.clock_and_entropy import Clock, Entropy, new_uuid
from birthmark.errors import (
    BirthmarkError,
    ChangedMeanwhileError,
    ConflictError,
    NotFoundError,
    PolicyError,
    UnavailableError,
)
from birthmark.iothub import store
from birthmark.iothub.model import Device, Hub, Module, name_of
from birthmark.iothub.rules.twins import TwinVersionError
from birthmark.iothub.service.bulk_registry import Bulk
from birthmark.iothub.service.file_uploads import FileUploads, account_of
from birthmark.iothub.service.hubs_and_authorization import Hubs, UnknownHubError
from birthmark.iothub.service.registry import Registry
from birthmark.iothub.service.twins import Twins
from birthmark.iothub.wire import BodyInvalidError
from birthmark.iothub.wire.registry_jobs import (
    MAX_LINE_BYTES,
    MAX_LINES,
    ContainerUriError,
    ImportLine,
    RegistryJobRequest,
    export_line,
    parse_container_uri,
    parse_import_line,
)
from birthmark.store import Changes, Database, to_micros
from birthmark.supervised_tasks import Leads, always, run_in_thread, told

KEEP = timedelta(days=30)
IMPORT_RIGHTS = (Right.ENROLL, Right.OPERATE, Right.REVOKE)
"""Rights that an import needs: its lines create and delete devices, replace keys, and change twins."""
ENQUEUED, RUNNING, COMPLETED, FAILED, CANCELLED = "enqueued", "running", "completed", "failed", "cancelled"
_LOOK_S = 2.0
_BATCH = 64
_PAGE = 200
_MAX_FAILURE_CHARS = 500
ErrorName = Callable[[BirthmarkError], str]
"""Returns the name of an error for clients."""
ActorNow = Callable[[str, Hub], str]
"""Returns the actor of a stored job for its next lines; raises the error of a user who may no longer import."""


class UnknownRegistryJobError(NotFoundError):
    """The hub has no such import or export job."""

    code = "iothub.unknown_registry_job"
    message = "The job {job_id} does not exist"
    cause = "Hub {hub} has no import or export job {job_id}. Jobs are deleted 30 days after they end."
    fix = "List the hub's jobs with a service SDK. To list the hubs: `birthmark hub ls`"
    hub: str
    job_id: str


class RegistryJobRunningError(PolicyError):
    """The hub already runs an import or export job."""

    code = "iothub.registry_job_running"
    message = "An import or export of this hub is already running"
    cause = "Hub {hub} runs an import or export of its registry, and a hub runs one at a time."
    fix = "Wait until the job ends, or cancel it. List the files of a job: `birthmark hub file ls --hub {hub}`"
    hub: str


@dataclass(slots=True)
class RegistryJobs:
    """Imports and exports of all hubs; `leads` returns whether this worker runs them."""

    database: Database
    clock: Clock
    entropy: Entropy
    hubs: Hubs
    files: FileUploads
    registry: Registry
    twins: Twins
    bulk: Bulk
    leads: Leads = always
    _started: asyncio.Event = field(default_factory=asyncio.Event)

    async def create(self, hub: Hub, request: RegistryJobRequest, host: str, *, actor: str) -> store.RegistryJob:
        """Start a job. Raise `ContainerUriError`, `RegistryJobRunningError`, `StorageUnavailableError`."""
        storage, inputs = self.files.get_storage(), ""
        if request.is_import:
            inputs = await self._check(storage, hub, request.input_uri, "inputBlobContainerUri", SasPermission.READ)
        outputs = await self._check(storage, hub, request.output_uri, "outputBlobContainerUri", SasPermission.WRITE)
        for member, name in (("inputBlobName", request.input_blob), ("outputBlobName", request.output_blob)):
            if (problem := find_name_error(name)) is not None:
                raise BodyInvalidError(detail=f"{member} is not a valid file name: {problem}")
        job = store.RegistryJob(
            hub=hub.name,
            job_id=new_uuid(self.entropy),
            is_import=request.is_import,
            status=ENQUEUED,
            running_hub=hub.name,
            host=host,
            input_container=inputs,
            input_blob=request.input_blob if request.is_import else "",
            input_etag="",
            output_container=outputs,
            output_blob=request.output_blob,
            excludes_keys=request.excludes_keys,
            done=0,
            tried=0,
            total=0,
            failure="",
            actor=str(actor),
            started_at=self.clock.micros(),
        )
        changes = Changes().run(store.ADD_REGISTRY_JOB, **store.REGISTRY_JOBS.row(job))
        action = "iothub.registry_import" if job.is_import else "iothub.registry_export"
        facts = {"job": job.job_id, "with_keys": not (job.is_import or job.excludes_keys)}
        try:
            await self.database.commit(changes.audit(actor, action, hub.name, **facts))
        except ConflictError as error:
            raise RegistryJobRunningError(hub=hub.name) from error
        self._started.set()
        return job

    async def get(self, hub: Hub, job_id: str) -> store.RegistryJob:
        """Return a job. Raise `UnknownRegistryJobError`."""
        row = await self.database.one(store.GET_REGISTRY_JOB, hub=hub.name, job_id=job_id)
        if row is None:
            raise UnknownRegistryJobError(hub=hub.name, job_id=job_id[:40])
        return store.REGISTRY_JOBS.of(row)

    async def all(self, hub: Hub) -> Sequence[store.RegistryJob]:
        """Return the latest jobs of a hub, at most 100."""
        rows = await self.database.all(store.REGISTRY_JOBS_OF_HUB, hub=hub.name)
        return [store.REGISTRY_JOBS.of(row) for row in rows]

    async def cancel(self, hub: Hub, job_id: str, *, actor: str) -> store.RegistryJob:
        """Cancel a job; a job that has ended remains as it is. Raise `UnknownRegistryJobError`."""
        job = await self.get(hub, job_id)
        if job.running_hub is not None:
            changes = self._ending(job, CANCELLED, "the job was cancelled")
            with contextlib.suppress(ChangedMeanwhileError):  # it ended
                await self.database.commit(changes.audit(actor, "iothub.registry_job_cancel", hub.name, job=job_id))
        return await self.get(hub, job_id)

    async def keep_running(self, error_name: ErrorName, actor_now: ActorNow = lambda name, _hub: name) -> None:
        """Run the started jobs, including those of a former leader, forever."""
        while True:
            self._started.clear()
            if await self.leads():
                for row in await self.database.all(store.RUNNING_REGISTRY_JOBS):
                    job = store.REGISTRY_JOBS.of(row)
                    work = self._run(job, error_name, actor_now)
                    await told("imports and exports of hubs", work)  # an error does not stop those of other hubs
                before = self.clock.micros() - KEEP // timedelta(microseconds=1)
                await self.database.commit(
                    Changes()
                    .run(store.FORGET_REGISTRY_JOB_ERRORS, before=before)
                    .run(store.FORGET_REGISTRY_JOBS, before=before)
                )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._started.wait()

    async def _run(self, job: store.RegistryJob, error_name: ErrorName, actor_now: ActorNow) -> None:
        """Run a job to its end, unless it is cancelled or another worker continues it."""
        try:
            hub = self.hubs.by_name(job.hub)
            await (self._import(hub, job, error_name, actor_now) if job.is_import else self._export(hub, job))
        except (ChangedMeanwhileError, UnknownHubError):
            return
        except UnavailableError:
            raise
        except BirthmarkError as error:
            with contextlib.suppress(ChangedMeanwhileError):
                await self.database.commit(self._ending(job, FAILED, str(error)[:_MAX_FAILURE_CHARS]))

    # Export.

    async def _export(self, hub: Hub, job: store.RegistryJob) -> None:
        storage = self.files.get_storage()
        total, _ = await self.registry.count(hub)
        job = await self._step(job, done=0, tried=0, total=total)
        place = BlobPath(hub.name, job.output_container, job.output_blob)
        content = BlobContent(self._lines_of(hub, job), headers={"content-type": "text/plain"})
        await storage.put(WriteScope(place, guard=self._guard(job)), content)
        await self.database.commit(self._ending(job, COMPLETED, ""))

    async def _lines_of(self, hub: Hub, job: store.RegistryJob) -> AsyncIterator[bytes]:
        """Yield the lines of all devices, and store the progress after each page."""
        async for count, line in self._numbered_lines(hub, with_keys=not job.excludes_keys):
            if count >= job.done + _PAGE:
                job = await self._step(job, done=count, tried=0, total=max(job.total, count))
            yield line

    async def lines(self, hub: Hub, *, with_keys: bool) -> AsyncIterator[bytes]:
        """Yield the lines of all devices, each followed by its modules."""
        async for _, line in self._numbered_lines(hub, with_keys=with_keys):
            yield line

    async def _numbered_lines(self, hub: Hub, *, with_keys: bool) -> AsyncIterator[tuple[int, bytes]]:
        """Yield lines, each with the number of devices before it."""
        after, count = "", 0
        while found := await self.registry.devices(hub, after=after, limit=_PAGE):
            for device in found:
                identities: list[Device | Module] = [device, *await self.registry.modules.of(hub, device.device_id)]
                for one in identities:
                    yield count, export_line(one, await self.twins.get(hub, one.name), with_keys=with_keys)
                count += 1
            after = found[-1].device_id

    # Import.

    async def _import(self, hub: Hub, job: store.RegistryJob, error_name: ErrorName, actor_now: ActorNow) -> None:
        storage = self.files.get_storage()
        path = BlobPath(hub.name, job.input_container, job.input_blob)
        blob = await storage.get(path)
        if job.input_etag not in {"", blob.etag}:
            raise _unusable(hub, f"its file {job.input_blob} was changed")
        file = await storage.open(path, blob)
        with file:
            total = await run_in_thread(lambda: _count_lines(file))
            if total > MAX_LINES:
                raise _unusable(hub, f"its file {job.input_blob} has more than {MAX_LINES} lines")
            file.seek(0)
            lines = islice(_lines(file), job.done, None)
            while batch := await run_in_thread(lambda: list(islice(lines, _BATCH))):
                uncertain = job.tried - job.done
                tried = job.done + len(batch)
                job = await self._step(job, done=job.done, tried=max(tried, job.tried), total=total, etag=blob.etag)
                now = replace(job, actor=actor_now(job.actor, hub))
                errors = await self._try(hub, now, batch, uncertain, error_name)
                job = await self._step(job, done=tried, tried=tried, total=total, etag=blob.etag, errors=errors)
        log = BlobPath(hub.name, job.output_container, job.output_blob)
        content = BlobContent(self._errors_of(job), headers={"content-type": "text/plain"})
        await storage.put(WriteScope(log, guard=self._guard(job)), content)
        await self.database.commit(self._ending(job, COMPLETED, ""))

    async def _try(
        self, hub: Hub, job: store.RegistryJob, batch: Sequence[bytes], uncertain: int, error_name: ErrorName
    ) -> Sequence[store.RegistryJobError]:
        """Apply lines in order; return those that failed. The first `uncertain` ones may be applied already."""
        found: list[store.RegistryJobError] = []
        for number, line in enumerate(batch):
            item: ImportLine | None = None
            try:
                item = parse_import_line(line)
                await self._apply(hub, item, job.actor)
            except UnavailableError:
                raise
            except BirthmarkError as error:
                if number < uncertain and item is not None and await self._is_applied(hub, item, job):
                    await self._complete(hub, item, job.actor)
                    continue
                facts = {
                    "id": "" if item is None else item.id[:128],
                    "errorCode": error_name(error),
                    "errorStatus": str(error),
                }
                if item is not None and item.module_id is not None:
                    facts["moduleId"] = item.module_id[:128]
                text = json.dumps({"line": job.done + number + 1, **facts})
                found.append(store.RegistryJobError(job.hub, job.job_id, job.done + number + 1, text))
        return found

    async def apply_line(self, hub: Hub, line: bytes, actor: str) -> None:
        """Import one line. Raise `BodyInvalidError`, and the errors of the registry."""
        await self._apply(hub, parse_import_line(line), actor)

    async def _apply(self, hub: Hub, item: ImportLine, actor: str) -> None:
        (problem,) = await self.bulk.do(hub, [item], actor=actor)
        if problem is not None:
            raise problem
        await self._report(hub, item)

    async def _report(self, hub: Hub, item: ImportLine) -> None:
        if item.reported and not item.import_mode.startswith("delete"):
            identity = await self.registry.identity(hub, name_of(item.id, item.module_id))
            await self.twins.report(hub, identity, item.reported, None)

    async def _complete(self, hub: Hub, item: ImportLine, actor: str) -> None:
        """Apply the twin of a line whose identity was written before a kill."""
        if item.import_mode.startswith("delete"):
            return
        is_conditional = item.import_mode.endswith("IfMatchETag") and item.twin_etag
        etag = str(item.twin_etag).strip('"') if is_conditional else "*"
        if item.twin:
            with contextlib.suppress(TwinVersionError):  # the twin was written, too
                await self.twins.desire(
                    hub, name_of(item.id, item.module_id), item.twin, etag, replaces=False, actor=actor
                )
        await self._report(hub, item)

    async def _is_applied(self, hub: Hub, item: ImportLine, job: store.RegistryJob) -> bool:
        """Return whether a line that failed at its second try has its effect since the start of the job."""
        try:
            identity = await self.registry.identity(hub, name_of(item.id, item.module_id))
        except NotFoundError:
            return item.import_mode.startswith("delete")
        at = identity.created_at if item.import_mode == "create" else identity.updated_at
        return not item.import_mode.startswith("delete") and to_micros(at) >= job.started_at

    async def _errors_of(self, job: store.RegistryJob) -> AsyncIterator[bytes]:
        """Yield the lines of the error log."""
        key: dict[str, Any] = {"hub": job.hub, "job_id": job.job_id, "limit": _PAGE}
        after = 0
        while rows := await self.database.all(store.REGISTRY_JOB_ERRORS_PAGE, after=after, **key):
            for row in rows:
                yield row["text"].encode() + b"\n"
            after = rows[-1]["line"]

    # State.

    async def _check(self, storage: BlobStorage, hub: Hub, uri: str, member: str, permission: SasPermission) -> str:
        """Return the container that a URI names with its signature. Raise `ContainerUriError`."""
        host, container, query = parse_container_uri(uri, hub.name, member)
        if (found := self.hubs.find(host)) is None or found.name != hub.name:
            raise ContainerUriError(hub=hub.name, member=member, detail="its host is not this hub")
        try:
            claims = parse_sas(account_of(hub), container, None, query, self.clock.now())
            check_permission(claims, permission)
            await storage.container(hub.name, container)
        except BirthmarkError as error:
            raise ContainerUriError(hub=hub.name, member=member, detail=str(error)) from error
        return container

    async def _step(
        self,
        job: store.RegistryJob,
        *,
        done: int,
        tried: int,
        total: int,
        etag: str = "",
        errors: Sequence[store.RegistryJobError] = (),
    ) -> store.RegistryJob:
        """Store the progress. Raise `ChangedMeanwhileError` if the job ended, or if another worker continues it."""
        made = replace(job, status=RUNNING, done=done, tried=tried, total=total, input_etag=etag)
        row = {name: getattr(made, name) for name in ("status", "done", "tried", "total", "input_etag")}
        changes = Changes().run(store.STEP_REGISTRY_JOB, expect=1, **row, **self._key(job), key_done=job.done)
        for one in errors:
            changes.run(store.ADD_REGISTRY_JOB_ERROR, **store.REGISTRY_JOB_ERRORS.row(one))
        await self.database.commit(changes)
        return made

    def _ending(self, job: store.RegistryJob, status: str, failure: str) -> Changes:
        ended: dict[str, Any] = {
            "status": status,
            "running_hub": None,
            "failure": failure,
            "ended_at": self.clock.micros(),
        }
        return Changes().run(store.END_REGISTRY_JOB, expect=1, **ended, **self._key(job))

    def _guard(self, job: store.RegistryJob) -> Changes:
        """Return a write guard that requires the job to run."""
        return Changes().run(store.REGISTRY_JOB_RUNS, expect=1, **self._key(job))

    def _key(self, job: store.RegistryJob) -> dict[str, Any]:
        return {"key_hub": job.hub, "key_job_id": job.job_id, "key_running_hub": job.hub}


def _unusable(hub: Hub, detail: str) -> ContainerUriError:
    return ContainerUriError(hub=hub.name, member="inputBlobContainerUri", detail=detail)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file that are not empty; of one that is too long, its beginning, which is not JSON."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        rest = line
        while len(rest) > MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE_BYTES + 1)
        if line.strip():
            yield line[:MAX_LINE_BYTES]


def _count_lines(file: BinaryIO) -> int:
    return sum(1 for _ in islice(_lines(file), MAX_LINES + 1))
