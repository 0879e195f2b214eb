"""Jobs: the operations of operators, and those of devices (`iot-jobs-data`)."""

from collections.abc import Mapping
from typing import Any

import msgspec

from birthmark.awsiot.http.request_router import AwsRequest
from birthmark.awsiot.http.tags import tags_of
from birthmark.awsiot.model import (
    ExecutionStatus,
    Job,
    JobTemplate,
    MemberNotServedError,
    ThingName,
    parse_job_id,
    parse_thing_name,
)
from birthmark.awsiot.rules.job_documents import parse_parameters, resolved
from birthmark.awsiot.rules.job_schedule import openings
from birthmark.awsiot.rules.jobs import UnknownJobTemplateError
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.job_executions import NEXT
from birthmark.awsiot.wire import BodyInvalidError, given_json, managed_job_templates
from birthmark.awsiot.wire import jobs as wire
from birthmark.awsiot.wire.managed_job_templates import MANAGED, VERSION
from birthmark.clock import EPOCH
from birthmark.store.pagination import page_of
from birthmark.untrusted_text import check_keys_once

JOBS_FOR_DEVICES = frozenset(
    {
        "GetPendingJobExecutions",
        "StartNextPendingJobExecution",
        "DescribeJobExecution (iot-jobs-data)",
        "UpdateJobExecution",
    }
)
_COUNTED: Mapping[ExecutionStatus, str] = {
    ExecutionStatus.QUEUED: "numberOfQueuedThings",
    ExecutionStatus.IN_PROGRESS: "numberOfInProgressThings",
    ExecutionStatus.SUCCEEDED: "numberOfSucceededThings",
    ExecutionStatus.FAILED: "numberOfFailedThings",
    ExecutionStatus.REJECTED: "numberOfRejectedThings",
    ExecutionStatus.TIMED_OUT: "numberOfTimedOutThings",
    ExecutionStatus.REMOVED: "numberOfRemovedThings",
    ExecutionStatus.CANCELED: "numberOfCanceledThings",
}
_MAX_TEXT = 2028


class JobOperations:
    """The operations of jobs and their templates, as operators ask."""

    def __init__(self, aws: AwsIot) -> None:
        self._jobs = aws.jobs
        self._executions = aws.jobs.executions

    # ---- jobs

    async def create_job(self, call: AwsRequest) -> Any:
        job_id, template = parse_job_id(call["jobId"]), await self._template(call)
        document, source = await self._document(call)
        if document is None:
            if template is None:
                raise BodyInvalidError(detail="document is missing")
            document, source = template.document, template.source
        parameters = parse_parameters(call.part("documentParameters", dict[str, str]) or {}, document)
        made = await self._jobs.create(
            job_id,
            call.part("targets", list[str]) or [],
            document,
            _text(call, "description") or (None if template is None else template.description),
            _scheduled(call, {} if template is None else template.settings, _settings(call)),
            is_continuous=call.get("targetSelection") == "CONTINUOUS",
            template=None if template is None else template.template_id,
            source=source,
            parameters=parameters,
            tags=tags_of(call, job_id),
            actor=call.actor,
        )
        return _named(call, made)

    async def _template(self, call: AwsRequest) -> JobTemplate | None:
        if (arn := call.get("jobTemplateArn")) is None:
            return None
        if (known := managed_job_templates.managed_by_arn(arn)) is not None:
            return JobTemplate(known.template_id, known.description, known.document, {}, EPOCH)
        return await self._jobs.template(call.account.parse_arn(arn, "jobtemplate")[1])

    async def _document(self, call: AwsRequest) -> tuple[str | None, str | None]:
        """Return the document of a request and where it was read. Raise for what cannot be filled in."""
        text, source = call.get("document"), call.get("documentSource")
        if source is not None:
            if text is not None:
                raise BodyInvalidError(detail="of document and documentSource there is one")
            text = await self._executions.files.document_at(source)
        elif text is not None:
            check_keys_once(text, BodyInvalidError)  # stored documents may have them
            text = wire.parse_document(text)
        if text is not None and (what := wire.placeholder_in(text)) is not None:
            raise MemberNotServedError(member=f"document with {what}", operation=call.operation.name)
        return text, source

    async def describe_job(self, call: AwsRequest) -> Any:
        job = await self._jobs.get(call["jobId"])
        targets = await self._jobs.targets(job.job_id)
        counts = await self._executions.counts(job.job_id)
        details: dict[str, Any] = {name: counts.get(status, 0) for status, name in _COUNTED.items()}
        if running := [one.target for one in targets if not one.is_done]:
            details["processingTargets"] = [call.account.arn(*target.split("/", 1)) for target in running]
        _ = call.flag("beforeSubstitution")  # the document stands in GetJobDocument alone
        told = {"job": wire.job_json(call.account, job, [one.target for one in targets], details)}
        if following := [*openings(wire.settings_of(job.settings), self._executions.clock.now())]:
            told["job"]["scheduledJobRollouts"] = [{"startTime": f"{one:%Y-%m-%dT%H:%M}"} for one in following]
        return told if job.source is None else told | {"documentSource": job.source}

    async def list_jobs(self, call: AwsRequest) -> Any:
        selection = call.get("targetSelection")
        page = await self._jobs.page(
            call.after,
            call.size,
            status=call.get("status") or "",
            is_continuous=None if selection is None else selection == "CONTINUOUS",
            group=call.get("thingGroupName"),
        )
        return call.paged("jobs", [wire.job_entry_json(call.account, job) for job in page.items], page)

    async def update_job(self, call: AwsRequest) -> None:
        await self._jobs.update(call["jobId"], _text(call, "description"), _settings(call), actor=call.actor)

    async def cancel_job(self, call: AwsRequest) -> Any:
        comment, force = _text(call, "comment"), call.flag("force")
        reason = _text(call, "reasonCode", 128)
        return _named(call, await self._jobs.cancel(call["jobId"], reason, comment, force=force, actor=call.actor))

    async def delete_job(self, call: AwsRequest) -> None:
        await self._jobs.delete(call["jobId"], force=call.flag("force"), actor=call.actor)

    async def get_job_document(self, call: AwsRequest) -> Any:
        job = await self._jobs.get(call["jobId"])
        is_before = call.flag("beforeSubstitution")
        return {"document": job.document if is_before else resolved(job.document, job.parameters)}

    async def associate_targets_with_job(self, call: AwsRequest) -> Any:
        targets, comment = call.part("targets", list[str]) or [], _text(call, "comment")
        return _named(call, await self._jobs.associate(call["jobId"], targets, comment, actor=call.actor))

    # ---- executions

    async def describe_job_execution(self, call: AwsRequest) -> Any:
        known = await self._executions.get(call["jobId"], call["thingName"], call.number("executionNumber"))
        return {"execution": wire.execution_json(call.account, known, self._executions.clock.now())}

    async def list_job_executions_for_job(self, call: AwsRequest) -> Any:
        status = call.get("status") or ""
        page = await self._executions.of_job(call["jobId"], status, call.after, call.size)
        found = [
            {
                "thingArn": call.account.arn("thing", one.thing),
                "jobExecutionSummary": wire.execution_entry_json(one),
            }
            for one in page.items
        ]
        return call.paged("executionSummaries", found, page)

    async def list_job_executions_for_thing(self, call: AwsRequest) -> Any:
        thing, status = call["thingName"], call.get("status") or ""
        job_id = call.get("jobId")
        page = await self._executions.of_thing(thing, status, call.after, call.size, job_id=job_id or "")
        found = [{"jobId": one.job_id, "jobExecutionSummary": wire.execution_entry_json(one)} for one in page.items]
        return call.paged("executionSummaries", found, page)

    async def cancel_job_execution(self, call: AwsRequest) -> None:
        details = wire.parse_details(call.part("statusDetails", dict[str, str]))
        expected, force = call.number("expectedVersion"), call.flag("force")
        await self._executions.cancel(
            call["jobId"], call["thingName"], expected, details, force=force, actor=call.actor
        )

    async def delete_job_execution(self, call: AwsRequest) -> None:
        number = call.number("executionNumber") or 0
        await self._executions.delete(
            call["jobId"], call["thingName"], number, force=call.flag("force"), actor=call.actor
        )

    # ---- templates

    async def create_job_template(self, call: AwsRequest) -> Any:
        template_id = parse_job_id(call["jobTemplateId"], "Job template id", "aws iot list-job-templates")
        (document, source), settings = await self._document(call), _settings(call)
        if (arn := call.get("jobArn")) is not None:
            if document is not None:
                raise BodyInvalidError(detail="of document, documentSource and jobArn there is one")
            job = await self._jobs.get(call.account.parse_arn(arn, "job")[1])
            document, source = resolved(job.document, job.parameters), job.source
            settings = {**_without_schedule(job.settings), **settings}
        if document is None:
            raise BodyInvalidError(detail="document is missing")
        windows = call.part("maintenanceWindows", list[wire.MaintenanceWindow])
        made = await self._jobs.create_template(
            template_id,
            _text(call, "description") or "",
            document,
            settings if windows is None else {**settings, "maintenanceWindows": msgspec.to_builtins(windows)},
            source=source,
            tags=tags_of(call, template_id),
            actor=call.actor,
        )
        told = wire.template_entry_json(call.account, made)
        return {name: told[name] for name in ("jobTemplateArn", "jobTemplateId")}

    async def describe_job_template(self, call: AwsRequest) -> Any:
        return wire.template_json(call.account, await self._jobs.template(call["jobTemplateId"]))

    async def list_job_templates(self, call: AwsRequest) -> Any:
        page = await self._jobs.templates(call.after, call.size)
        found = [wire.template_entry_json(call.account, one) for one in page.items]
        return call.paged("jobTemplates", found, page)

    async def list_managed_job_templates(self, call: AwsRequest) -> Any:
        wanted = call.get("templateName")
        names = [name for name in MANAGED if name > call.after and wanted in {None, name}]
        page = page_of(names[: call.size + 1], call.size, names)
        return call.paged(
            "managedJobTemplates",
            [managed_job_templates.managed_entry_json(call.account, MANAGED[name]) for name in page.items],
            page,
        )

    async def describe_managed_job_template(self, call: AwsRequest) -> Any:
        name, version = call["templateName"], call.get("templateVersion") or VERSION
        if (known := MANAGED.get(name)) is None or version != VERSION:
            command = "aws iot list-managed-job-templates"
            raise UnknownJobTemplateError(template=f"{name[:64]}:{version[:16]}", command=command)
        return managed_job_templates.managed_json(call.account, known)

    async def delete_job_template(self, call: AwsRequest) -> bytes:
        await self._jobs.delete_template(call["jobTemplateId"], actor=call.actor)
        return b""  # AWS answers with an empty body (measured)


class JobDataOperations:
    """The operations of `iot-jobs-data`: a device asks about its own, as far as its policies allow."""

    def __init__(self, aws: AwsIot) -> None:
        self._devices = aws.devices
        self._executions = aws.jobs.executions

    async def get_pending_job_executions(self, call: AwsRequest) -> Any:
        pending = await self._executions.pending(self._thing(call))
        return wire.answer(wire.lists(pending, ("inProgressJobs", "queuedJobs")))

    async def start_next_pending_job_execution(self, call: AwsRequest) -> Any:
        thing = self._thing(call)
        asked = _asked(call, is_update=False)
        found = await self._executions.start_next(thing, asked.status_details, asked.step_timeout_in_minutes)
        await self._executions.notify([thing])
        if found is None:
            return {}
        known, job = found
        document = await self._executions.document(job, thing, to_person=_is_person(call))
        return wire.answer({"execution": wire.execution(known, document, self._now(), is_text=True)})

    async def describe_job_execution_by_device(self, call: AwsRequest) -> Any:
        thing, job_id = self._thing(call), call["jobId"]
        known = await self._executions.described(thing, job_id, call.number("executionNumber"))
        if known is None:
            return {}
        document = None
        if call.flag("includeJobDocument", default=True):
            document = await self._executions.document(
                await self._executions.job(known.job_id), thing, to_person=_is_person(call)
            )
        return wire.answer({"execution": wire.execution(known, document, self._now(), is_text=True)})

    async def update_job_execution(self, call: AwsRequest) -> Any:
        thing, job_id = self._thing(call), call["jobId"]
        asked = _asked(call, is_update=True)
        known, job = await self._executions.update(thing, job_id, asked)
        await self._executions.notify([thing])
        told: dict[str, Any] = {}
        if asked.include_job_execution_state:
            told["executionState"] = wire.state(known)
        if asked.include_job_document:
            told["jobDocument"] = await self._executions.document(job, thing, to_person=_is_person(call))
        return wire.answer(told)

    def _thing(self, call: AwsRequest) -> ThingName:
        """Return whose jobs are meant, by whoever may do this to them."""
        thing = parse_thing_name(call["thingName"])
        service = "iotjobsdata" if call.grant.is_operator else "iot"
        self._devices.check(call.grant, f"{service}:{call.operation.name}", "thing", thing)
        if (job_id := call.get("jobId")) is not None and job_id != NEXT:
            parse_job_id(job_id)
        return thing

    def _now(self) -> Any:
        return self._executions.clock.now()


def _is_person(call: AwsRequest) -> bool:
    return call.grant.caller is not None


def _asked(call: AwsRequest, *, is_update: bool) -> wire.DeviceUpdate:
    return wire.checked(
        wire.DeviceUpdate(
            status=call.get("status") or "",
            status_details=call.part("statusDetails", dict[str, str]),
            expected_version=call.number("expectedVersion"),
            execution_number=call.number("executionNumber"),
            include_job_execution_state=call.flag("includeJobExecutionState"),
            include_job_document=call.flag("includeJobDocument"),
            step_timeout_in_minutes=call.number("stepTimeoutInMinutes"),
        ),
        is_update=is_update,
    )


def _named(call: AwsRequest, job: Job) -> dict[str, Any]:
    told = {"jobArn": call.account.arn("job", job.job_id), "jobId": job.job_id}
    return told if job.description is None else told | {"description": job.description}


def _scheduled(call: AwsRequest, of_template: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's settings: those of its template, and what the request says of them and of its time."""
    made = {**of_template, **given}
    windows = made.pop("maintenanceWindows", None)
    config = call.part("schedulingConfig", wire.SchedulingConfig)
    told = {} if windows is None else {"maintenanceWindows": windows}
    if config is not None:
        told |= given_json(config)
    return {**made, "schedulingConfig": told} if told else made


def _without_schedule(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a template has of a job's settings: of its time, the windows."""
    made = dict(settings)
    windows = made.pop("schedulingConfig", {}).get("maintenanceWindows")
    return made if windows is None else {**made, "maintenanceWindows": windows}


def _settings(call: AwsRequest) -> dict[str, Any]:
    found = {name: call.part(name, kind) for name, kind in wire.SETTINGS.items()}
    return {name: given_json(one) for name, one in found.items() if one is not None}


def _text(call: AwsRequest, name: str, most: int = _MAX_TEXT) -> str | None:
    text = call.get(name)
    if text is not None and (len(text) > most or not text.isprintable()):
        raise BodyInvalidError(detail=f"{name} has up to {most} printable characters")
    return text
