"""Jobs: operations for operators and for devices (`iot-jobs-data`)."""

from collections.abc import Mapping
from typing import Any

import msgspec

from birthmark.awsiot.http.operation_routing_and_request_members import AwsRequest
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
from birthmark.awsiot.rules.job_document_placeholders import parse_parameters, substitute_parameters
from birthmark.awsiot.rules.job_executions import UnknownJobTemplateError
from birthmark.awsiot.rules.job_schedule import openings
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.job_executions import NEXT
from birthmark.awsiot.wire import BodyInvalidError, given_json, managed_job_templates
from birthmark.awsiot.wire import jobs as wire
from birthmark.awsiot.wire.managed_job_templates import MANAGED, VERSION
from birthmark.clock_and_entropy import EPOCH
from birthmark.store.pagination import page_of
from birthmark.untrusted_json_and_text import check_keys_once

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
    """Operator operations of jobs and their templates."""

    def __init__(self, aws: AwsIot) -> None:
        self._jobs = aws.jobs
        self._executions = aws.jobs.executions

    # ---- jobs

    async def create_job(self, request: AwsRequest) -> Any:
        job_id, template = parse_job_id(request["jobId"]), await self._template(request)
        document, source = await self._document(request)
        if document is None:
            if template is None:
                raise BodyInvalidError(detail="document is missing")
            document, source = template.document, template.source
        parameters = parse_parameters(request.part("documentParameters", dict[str, str]) or {}, document)
        made = await self._jobs.create(
            job_id,
            request.part("targets", list[str]) or [],
            document,
            _text(request, "description") or (None if template is None else template.description),
            _job_settings(request, {} if template is None else template.settings, _settings(request)),
            is_continuous=request.get("targetSelection") == "CONTINUOUS",
            template=None if template is None else template.template_id,
            source=source,
            parameters=parameters,
            tags=tags_of(request, job_id),
            actor=request.actor,
        )
        return _named(request, made)

    async def _template(self, request: AwsRequest) -> JobTemplate | None:
        if (arn := request.get("jobTemplateArn")) is None:
            return None
        if (known := managed_job_templates.managed_by_arn(arn)) is not None:
            return JobTemplate(known.template_id, known.description, known.document, {}, EPOCH)
        return await self._jobs.template(request.account.parse_arn(arn, "jobtemplate")[1])

    async def _document(self, request: AwsRequest) -> tuple[str | None, str | None]:
        """Return the document of a request and its source. Raise for placeholders that cannot be resolved."""
        text, source = request.get("document"), request.get("documentSource")
        if source is not None:
            if text is not None:
                raise BodyInvalidError(detail="document and documentSource cannot be combined")
            text = await self._executions.files.document_at(source)
        elif text is not None:
            check_keys_once(text, BodyInvalidError)  # stored ones may repeat keys
            text = wire.parse_document(text)
        if text is not None and (what := wire.find_unsupported_placeholder(text)) is not None:
            raise MemberNotServedError(member=f"document with {what}", operation=request.operation.name)
        return text, source

    async def describe_job(self, request: AwsRequest) -> Any:
        job = await self._jobs.get(request["jobId"])
        targets = await self._jobs.targets(job.job_id)
        counts = await self._executions.counts(job.job_id)
        details: dict[str, Any] = {name: counts.get(status, 0) for status, name in _COUNTED.items()}
        if running := [one.target for one in targets if not one.is_done]:
            details["processingTargets"] = [request.account.arn(*target.split("/", 1)) for target in running]
        _ = request.flag("beforeSubstitution")  # only GetJobDocument has the document
        told = {"job": wire.job_json(request.account, job, [one.target for one in targets], details)}
        if following := [*openings(wire.settings_of(job.settings), self._executions.clock.now())]:
            told["job"]["scheduledJobRollouts"] = [{"startTime": f"{one:%Y-%m-%dT%H:%M}"} for one in following]
        return told if job.source is None else told | {"documentSource": job.source}

    async def list_jobs(self, request: AwsRequest) -> Any:
        selection = request.get("targetSelection")
        page = await self._jobs.page(
            request.after,
            request.size,
            status=request.get("status") or "",
            is_continuous=None if selection is None else selection == "CONTINUOUS",
            group=request.get("thingGroupName"),
        )
        return request.paged("jobs", [wire.job_entry_json(request.account, job) for job in page.items], page)

    async def update_job(self, request: AwsRequest) -> None:
        await self._jobs.update(
            request["jobId"], _text(request, "description"), _settings(request), actor=request.actor
        )

    async def cancel_job(self, request: AwsRequest) -> Any:
        comment, force = _text(request, "comment"), request.flag("force")
        reason = _text(request, "reasonCode", 128)
        return _named(
            request, await self._jobs.cancel(request["jobId"], reason, comment, force=force, actor=request.actor)
        )

    async def delete_job(self, request: AwsRequest) -> None:
        await self._jobs.delete(request["jobId"], force=request.flag("force"), actor=request.actor)

    async def get_job_document(self, request: AwsRequest) -> Any:
        job = await self._jobs.get(request["jobId"])
        is_before = request.flag("beforeSubstitution")
        return {"document": job.document if is_before else substitute_parameters(job.document, job.parameters)}

    async def associate_targets_with_job(self, request: AwsRequest) -> Any:
        targets, comment = request.part("targets", list[str]) or [], _text(request, "comment")
        return _named(request, await self._jobs.associate(request["jobId"], targets, comment, actor=request.actor))

    # ---- executions

    async def describe_job_execution(self, request: AwsRequest) -> Any:
        known = await self._executions.get(request["jobId"], request["thingName"], request.number("executionNumber"))
        return {"execution": wire.execution_json(request.account, known, self._executions.clock.now())}

    async def list_job_executions_for_job(self, request: AwsRequest) -> Any:
        status = request.get("status") or ""
        page = await self._executions.of_job(request["jobId"], status, request.after, request.size)
        found = [
            {
                "thingArn": request.account.arn("thing", one.thing),
                "jobExecutionSummary": wire.execution_entry_json(one),
            }
            for one in page.items
        ]
        return request.paged("executionSummaries", found, page)

    async def list_job_executions_for_thing(self, request: AwsRequest) -> Any:
        thing, status = request["thingName"], request.get("status") or ""
        job_id = request.get("jobId")
        page = await self._executions.of_thing(thing, status, request.after, request.size, job_id=job_id or "")
        found = [{"jobId": one.job_id, "jobExecutionSummary": wire.execution_entry_json(one)} for one in page.items]
        return request.paged("executionSummaries", found, page)

    async def cancel_job_execution(self, request: AwsRequest) -> None:
        details = wire.parse_details(request.part("statusDetails", dict[str, str]))
        expected, force = request.number("expectedVersion"), request.flag("force")
        await self._executions.cancel(
            request["jobId"], request["thingName"], expected, details, force=force, actor=request.actor
        )

    async def delete_job_execution(self, request: AwsRequest) -> None:
        number = request.number("executionNumber") or 0
        await self._executions.delete(
            request["jobId"], request["thingName"], number, force=request.flag("force"), actor=request.actor
        )

    # ---- templates

    async def create_job_template(self, request: AwsRequest) -> Any:
        template_id = parse_job_id(request["jobTemplateId"], "Job template id", "aws iot list-job-templates")
        (document, source), settings = await self._document(request), _settings(request)
        if (arn := request.get("jobArn")) is not None:
            if document is not None:
                raise BodyInvalidError(detail="document, documentSource and jobArn cannot be combined")
            job = await self._jobs.get(request.account.parse_arn(arn, "job")[1])
            document, source = substitute_parameters(job.document, job.parameters), job.source
            settings = {**_without_schedule(job.settings), **settings}
        if document is None:
            raise BodyInvalidError(detail="document is missing")
        windows = request.part("maintenanceWindows", list[wire.MaintenanceWindow])
        made = await self._jobs.create_template(
            template_id,
            _text(request, "description") or "",
            document,
            settings if windows is None else {**settings, "maintenanceWindows": msgspec.to_builtins(windows)},
            source=source,
            tags=tags_of(request, template_id),
            actor=request.actor,
        )
        told = wire.template_entry_json(request.account, made)
        return {name: told[name] for name in ("jobTemplateArn", "jobTemplateId")}

    async def describe_job_template(self, request: AwsRequest) -> Any:
        return wire.template_json(request.account, await self._jobs.template(request["jobTemplateId"]))

    async def list_job_templates(self, request: AwsRequest) -> Any:
        page = await self._jobs.templates(request.after, request.size)
        found = [wire.template_entry_json(request.account, one) for one in page.items]
        return request.paged("jobTemplates", found, page)

    async def list_managed_job_templates(self, request: AwsRequest) -> Any:
        wanted = request.get("templateName")
        names = [name for name in MANAGED if name > request.after and wanted in {None, name}]
        page = page_of(names[: request.size + 1], request.size, names)
        return request.paged(
            "managedJobTemplates",
            [managed_job_templates.managed_entry_json(request.account, MANAGED[name]) for name in page.items],
            page,
        )

    async def describe_managed_job_template(self, request: AwsRequest) -> Any:
        name, version = request["templateName"], request.get("templateVersion") or VERSION
        if (known := MANAGED.get(name)) is None or version != VERSION:
            command = "aws iot list-managed-job-templates"
            raise UnknownJobTemplateError(template=f"{name[:64]}:{version[:16]}", command=command)
        return managed_job_templates.managed_json(request.account, known)

    async def delete_job_template(self, request: AwsRequest) -> bytes:
        await self._jobs.delete_template(request["jobTemplateId"], actor=request.actor)
        return b""  # AWS answers with an empty body (measured)


class JobDataOperations:
    """Operations of `iot-jobs-data`: a device accesses its own jobs, as far as its policies allow."""

    def __init__(self, aws: AwsIot) -> None:
        self._devices = aws.devices
        self._executions = aws.jobs.executions

    async def get_pending_job_executions(self, request: AwsRequest) -> Any:
        pending = await self._executions.pending(self._thing(request))
        return wire.answer(wire.lists(pending, ("inProgressJobs", "queuedJobs")))

    async def start_next_pending_job_execution(self, request: AwsRequest) -> Any:
        thing = self._thing(request)
        asked = _asked(request, is_update=False)
        found = await self._executions.start_next(thing, asked.status_details, asked.step_timeout_in_minutes)
        await self._executions.notify([thing])
        if found is None:
            return {}
        known, job = found
        document = await self._executions.document(job, thing, to_person=_is_person(request))
        return wire.answer({"execution": wire.execution(known, document, self._now(), is_text=True)})

    async def describe_job_execution_by_device(self, request: AwsRequest) -> Any:
        thing, job_id = self._thing(request), request["jobId"]
        known = await self._executions.describe_execution(thing, job_id, request.number("executionNumber"))
        if known is None:
            return {}
        document = None
        if request.flag("includeJobDocument", default=True):
            document = await self._executions.document(
                await self._executions.job(known.job_id), thing, to_person=_is_person(request)
            )
        return wire.answer({"execution": wire.execution(known, document, self._now(), is_text=True)})

    async def update_job_execution(self, request: AwsRequest) -> Any:
        thing, job_id = self._thing(request), request["jobId"]
        asked = _asked(request, is_update=True)
        known, job = await self._executions.update(thing, job_id, asked)
        await self._executions.notify([thing])
        told: dict[str, Any] = {}
        if asked.include_job_execution_state:
            told["executionState"] = wire.state(known)
        if asked.include_job_document:
            told["jobDocument"] = await self._executions.document(job, thing, to_person=_is_person(request))
        return wire.answer(told)

    def _thing(self, request: AwsRequest) -> ThingName:
        """Return the thing whose jobs are requested, after checking the caller's permission."""
        thing = parse_thing_name(request["thingName"])
        service = "iotjobsdata" if request.grant.is_operator else "iot"
        self._devices.check(request.grant, f"{service}:{request.operation.name}", "thing", thing)
        if (job_id := request.get("jobId")) is not None and job_id != NEXT:
            parse_job_id(job_id)
        return thing

    def _now(self) -> Any:
        return self._executions.clock.now()


def _is_person(request: AwsRequest) -> bool:
    return request.grant.caller is not None


def _asked(request: AwsRequest, *, is_update: bool) -> wire.DeviceUpdate:
    return wire.checked(
        wire.DeviceUpdate(
            status=request.get("status") or "",
            status_details=request.part("statusDetails", dict[str, str]),
            expected_version=request.number("expectedVersion"),
            execution_number=request.number("executionNumber"),
            include_job_execution_state=request.flag("includeJobExecutionState"),
            include_job_document=request.flag("includeJobDocument"),
            step_timeout_in_minutes=request.number("stepTimeoutInMinutes"),
        ),
        is_update=is_update,
    )


def _named(request: AwsRequest, job: Job) -> dict[str, Any]:
    told = {"jobArn": request.account.arn("job", job.job_id), "jobId": job.job_id}
    return told if job.description is None else told | {"description": job.description}


def _job_settings(request: AwsRequest, of_template: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's settings: those of its template, overridden by the request, with its schedule."""
    made = {**of_template, **values}
    windows = made.pop("maintenanceWindows", None)
    config = request.part("schedulingConfig", wire.SchedulingConfig)
    told = {} if windows is None else {"maintenanceWindows": windows}
    if config is not None:
        told |= given_json(config)
    return {**made, "schedulingConfig": told} if told else made


def _without_schedule(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a template's job settings; of the schedule only the maintenance windows."""
    made = dict(settings)
    windows = made.pop("schedulingConfig", {}).get("maintenanceWindows")
    return made if windows is None else {**made, "maintenanceWindows": windows}


def _settings(request: AwsRequest) -> dict[str, Any]:
    found = {name: request.part(name, kind) for name, kind in wire.SETTINGS.items()}
    return {name: given_json(one) for name, one in found.items() if one is not None}


def _text(request: AwsRequest, name: str, limit: int = _MAX_TEXT) -> str | None:
    text = request.get(name)
    if text is not None and (len(text) > limit or not text.isprintable()):
        raise BodyInvalidError(detail=f"{name} has up to {limit} printable characters")
    return text
