"""Jobs as operators create and change them; `rollout` applies them to things in batches."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

import msgspec

from birthmark.awsiot.model import (
    GOES_ON,
    ArnInvalidError,
    Job,
    JobStatus,
    JobTarget,
    JobTemplate,
)
from birthmark.awsiot.rules import job_executions as rules
from birthmark.awsiot.rules import job_schedule
from birthmark.awsiot.rules.job_document_placeholders import substitute_parameters
from birthmark.awsiot.service.base import AccountService
from birthmark.awsiot.service.job_executions import JobExecutions
from birthmark.awsiot.service.tags import NO_TAGS, Tags, tag_deletes, written
from birthmark.awsiot.service.thing_groups import DynamicGroupError, ThingGroups
from birthmark.awsiot.service.things import Things
from birthmark.awsiot.store import jobs as store
from birthmark.awsiot.wire import BodyInvalidError
from birthmark.awsiot.wire.jobs import MaintenanceWindow, settings_of
from birthmark.store import Changes, retry_on_conflict
from birthmark.store.pagination import Page, page_of

_ATTEMPTS = 8
_THING, _GROUP = "thing", "thinggroup"


class JobService(AccountService):
    """Jobs and job templates of the account."""

    def __init__(self, executions: JobExecutions, things: Things, groups: ThingGroups) -> None:
        super().__init__(executions.database, executions.clock, executions.entropy)
        self.account = executions.account
        self.executions = executions
        self.announcer = executions.announcer
        self._things = things
        self._groups = groups
        self.work = asyncio.Event()
        """Set when there is work for `rollout`."""

    async def get(self, job_id: str) -> Job:
        """Return a job. Raise `UnknownJobError`."""
        return await self.executions.job(job_id)

    async def targets(self, job_id: str) -> Sequence[JobTarget]:
        """Return the targets of a job, in order."""
        rows = await self.database.all(store.TARGETS_OF, job_id=job_id)
        return [store.TARGETS.of(row) for row in rows]

    async def create(
        self,
        job_id: str,
        targets: Sequence[str],
        document: str,
        description: str | None,
        settings: Mapping[str, Any],
        *,
        is_continuous: bool = False,
        template: str | None = None,
        source: str | None = None,
        parameters: Mapping[str, str] = MappingProxyType({}),
        tags: Tags = NO_TAGS,
        actor: str,
    ) -> Job:
        """Create a job for these ARNs.

        Raise `JobExistsError`, `TooManyJobsError`, and for targets `NotFoundError`.
        """
        await self.executions.files.check(substitute_parameters(document, parameters))
        known, now = await self._parsed(targets), self.clock.now()
        config = settings_of(settings).scheduling_config
        if config is not None:
            job_schedule.check(config, now, is_continuous=is_continuous)
        waits = config is not None and config.start_time is not None
        row = await self.database.one(store.COUNT_ACTIVE)
        if row is not None and row["count"] >= rules.MAX_ACTIVE:
            raise rules.TooManyJobsError
        made = Job(
            *(job_id, document, description, settings, is_continuous, template),
            JobStatus.SCHEDULED if waits else JobStatus.IN_PROGRESS,
            force_canceled=False,
            reason_code=None,
            comment=None,
            created_at=now,
            updated_at=now,
            completed_at=None,
            rolled=0,
            rolled_at=now,
            revision=1,
            source=source,
            parameters=parameters,
        )
        exists = rules.JobExistsError(job=job_id)
        changes = Changes().run(store.ADD_JOB, expect=1, otherwise=exists, **store.JOBS.row(made))
        for target in known:
            changes.run(store.ADD_TARGET, **store.TARGETS.row(JobTarget(job_id, target, "", is_done=False)))
        changes.merge(written("job", job_id, tags))
        told: dict[str, Any] = {"targets": len(known), "continuous": is_continuous}
        if config is not None:  # starts later, or in windows
            told["lasting"] = True
        await self.database.commit(changes.audit(actor, "awsiot.job_create", job_id, **told))
        self.work.set()
        return made

    async def _parsed(self, arns: Sequence[str]) -> Sequence[str]:
        """Return targets in stored form. Raise for a missing one or a dynamic group."""
        if not 1 <= len(arns) <= rules.MAX_TARGETS:
            raise BodyInvalidError(detail=f"targets has 1 to {rules.MAX_TARGETS} ARNs")
        found: dict[str, None] = {}
        for arn in arns:
            kind, name = self.account.parse_arn(arn, _THING, _GROUP)
            if kind == _THING:
                await self._things.get(name)
            elif (await self._groups.get(name)).query is not None:
                raise DynamicGroupError(group=name)
            found[f"{kind}/{name}"] = None
        return list(found)

    async def page(
        self, after: str, size: int, *, status: str = "", is_continuous: bool | None = None, group: str | None = None
    ) -> Page[Job]:
        """Return jobs in order of their IDs: of one status, one target selection, or one group."""
        rows = await self.database.all(
            store.LIST_JOBS,
            after=after,
            limit=size + 1,
            status=status,
            continuous=-1 if is_continuous is None else int(is_continuous),
            target="" if group is None else f"{_GROUP}/{group}",
        )
        found = [store.JOBS.of(row) for row in rows]
        return page_of(found, size, [one.job_id for one in found])

    async def update(self, job_id: str, description: str | None, settings: Mapping[str, Any], *, actor: str) -> None:
        """Change an unfinished job. Raise `UnknownJobError`, `JobStateError`."""

        async def decide() -> None:
            job = await self._in_progress(job_id, "it is not changed any more")
            made = replace(
                job,
                description=job.description if description is None else description,
                settings={**job.settings, **settings},
            )
            await self.database.commit(self.changing(job, made).audit(actor, "awsiot.job_update", job_id))

        await retry_on_conflict(decide, attempts=_ATTEMPTS)
        self.work.set()

    async def _in_progress(self, job_id: str, detail: str) -> Job:
        job = await self.get(job_id)
        if job.status not in GOES_ON:
            raise rules.JobStateError(job=job_id, status=job.status.value, detail=detail)
        return job

    async def cancel(
        self, job_id: str, reason_code: str | None, comment: str | None, *, force: bool, actor: str
    ) -> Job:
        """Cancel a job: queued executions, with force also those in progress.

        Raise `UnknownJobError`, `JobStateError`.
        """

        async def decide() -> Job:
            job = await self.get(job_id)
            is_forced_later = job.status is JobStatus.CANCELED and force and not job.force_canceled
            if job.status not in GOES_ON and not is_forced_later:
                raise rules.JobStateError(job=job_id, status=job.status.value, detail="it is not canceled any more")
            made = self.canceled(job, reason_code, comment, force=force)
            changes = self.changing(job, made)
            await self.database.commit(changes.audit(actor, "awsiot.job_cancel", job_id, force=force))
            return made

        made = await retry_on_conflict(decide, attempts=_ATTEMPTS)
        self.work.set()
        await self.announce(made, "canceled")
        return made

    def canceled(self, job: Job, reason_code: str | None, comment: str | None, *, force: bool) -> Job:
        """Return the job as canceled."""
        return replace(
            job,
            status=JobStatus.CANCELED,
            force_canceled=force,
            reason_code=reason_code if reason_code is not None else job.reason_code,
            comment=comment if comment is not None else job.comment,
            completed_at=self.clock.now(),
        )

    async def delete(self, job_id: str, *, force: bool, actor: str) -> None:
        """Delete a job and its executions; one in progress only with force. Raise `JobStateError`."""

        async def decide() -> Job:
            job = await self.get(job_id)
            if job.status is JobStatus.DELETING:
                return job
            if job.status in GOES_ON and not force:
                raise rules.JobStateError(job=job_id, status=job.status.value, detail="it is deleted only by force")
            changes = self.changing(job, replace(job, status=JobStatus.DELETING)).merge(tag_deletes("job", job_id))
            await self.database.commit(changes.audit(actor, "awsiot.job_delete", job_id, force=force))
            return job

        await retry_on_conflict(decide, attempts=_ATTEMPTS)
        self.work.set()

    async def associate(self, job_id: str, arns: Sequence[str], comment: str | None, *, actor: str) -> Job:
        """Add groups to a continuous job. Raise `UnknownJobError`, `JobStateError`."""
        for arn in arns:
            if self.account.parse_arn(arn, _THING, _GROUP)[0] != _GROUP:
                raise ArnInvalidError(arn=arn[:300], account=self.account.account_id, kind=_GROUP)
        known = await self._parsed(arns)

        async def decide() -> Job:
            job = await self._in_progress(job_id, "it takes no more targets")
            if not job.is_continuous:
                raise rules.JobStateError(job=job_id, status="SNAPSHOT", detail="it takes no more targets")
            if len({one.target for one in await self.targets(job_id)} | {*known}) > rules.MAX_TARGETS:
                raise BodyInvalidError(detail=f"targets has 1 to {rules.MAX_TARGETS} ARNs")
            made = job if comment is None else replace(job, comment=comment)
            changes = self.changing(job, made)
            for target in known:
                changes.run(store.ADD_TARGET, **store.TARGETS.row(JobTarget(job_id, target, "", is_done=False)))
            await self.database.commit(changes.audit(actor, "awsiot.job_targets", job_id, targets=list(known)))
            return made

        made = await retry_on_conflict(decide, attempts=_ATTEMPTS)
        self.work.set()
        return made

    def changing(self, job: Job, changed: Job) -> Changes:
        """Return the writes that change a job, conditional on its state."""
        row = store.JOBS.row(replace(changed, updated_at=self.clock.now(), revision=job.revision + 1))
        for name in ("job_id", "document", "continuous", "template", "created_at", "source", "parameters"):
            del row[name]
        return Changes().run(store.CHANGE_JOB, expect=1, key_job_id=job.job_id, key_revision=job.revision, **row)

    async def announce(self, job: Job, event: str) -> None:
        """Announce a job event."""
        await self.announcer.tell(
            "JOB",
            f"job/{job.job_id}/{event}",
            eventType="JOB",
            operation=event,
            jobId=job.job_id,
            status=job.status.value,
            targetSelection="CONTINUOUS" if job.is_continuous else "SNAPSHOT",
            description=job.description,
            createdAt=int(job.created_at.timestamp()),
            lastUpdatedAt=int(job.updated_at.timestamp()),
        )

    async def pause(self, job_id: str, *, actor: str) -> Job:
        """Pause a job's rollout until `resume`; existing executions continue. Raise `JobStateError`."""
        return await self._set_paused(job_id, self.clock.now(), "awsiot.job_pause", actor)

    async def resume(self, job_id: str, *, actor: str) -> Job:
        """Resume a job's rollout at its rate. Raise `UnknownJobError`, `JobStateError`."""
        return await self._set_paused(job_id, None, "awsiot.job_resume", actor)

    async def _set_paused(self, job_id: str, timestamp: datetime | None, action: str, actor: str) -> Job:
        async def decide() -> Job:
            job = await self._in_progress(job_id, "its rollout has ended")
            if (job.paused_at is None) == (timestamp is None):
                return job
            made = replace(job, paused_at=timestamp, rolled_at=self.clock.now())
            await self.database.commit(self.changing(job, made).audit(actor, action, job_id))
            return made

        made = await retry_on_conflict(decide, attempts=_ATTEMPTS)
        self.work.set()
        return made

    # ---- templates

    async def template(self, template_id: str) -> JobTemplate:
        """Return a job template. Raise `UnknownJobTemplateError`."""
        if (row := await self.database.one(store.GET_TEMPLATE, template_id=template_id)) is None:
            raise rules.UnknownJobTemplateError(template=template_id[:64])
        return store.TEMPLATES.of(row)

    async def create_template(
        self,
        template_id: str,
        description: str,
        document: str,
        settings: Mapping[str, Any],
        *,
        source: str | None = None,
        tags: Tags = NO_TAGS,
        actor: str,
    ) -> JobTemplate:
        """Create a job template. Raise `JobExistsError`."""
        windows = msgspec.convert(settings.get("maintenanceWindows") or [], list[MaintenanceWindow])
        job_schedule.check_windows(windows, self.clock.now())
        made = JobTemplate(template_id, description, document, settings, self.clock.now(), source)
        exists = rules.JobExistsError(job=template_id, kind="Job template", command="aws iot list-job-templates")
        changes = Changes().run(store.ADD_TEMPLATE, expect=1, otherwise=exists, **store.TEMPLATES.row(made))
        changes.merge(written("jobtemplate", template_id, tags))
        await self.database.commit(changes.audit(actor, "awsiot.job_template_create", template_id))
        return made

    async def templates(self, after: str, size: int) -> Page[JobTemplate]:
        """Return job templates in order of their ids."""
        rows = await self.database.all(store.LIST_TEMPLATES, after=after, limit=size + 1)
        found = [store.TEMPLATES.of(row) for row in rows]
        return page_of(found, size, [one.template_id for one in found])

    async def delete_template(self, template_id: str, *, actor: str) -> None:
        """Delete a job template; jobs created from it stay. Raise `UnknownJobTemplateError`."""
        missing = rules.UnknownJobTemplateError(template=template_id[:64])
        changes = Changes().run(store.DELETE_TEMPLATE, expect=1, otherwise=missing, template_id=template_id)
        changes.merge(tag_deletes("jobtemplate", template_id))
        await self.database.commit(changes.audit(actor, "awsiot.job_template_delete", template_id))
