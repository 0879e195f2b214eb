"""Bulk registration tasks and their reports, which are available to holders of the link."""

import hmac
import json
import re
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from birthmark.awsiot.http.operation_routing_and_request_members import AwsRequest
from birthmark.awsiot.http.policy_resources import template_of
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.registration_tasks import UnknownTaskError
from birthmark.awsiot.wire import BodyInvalidError, provisioning

_INPUT_KEY = re.compile(r"[a-zA-Z0-9!_.*'()/-]{1,1024}")
"""Pattern of RegistryS3KeyName, which no other operation uses."""
_REPORT = re.compile(r"/thing-registration-tasks/([0-9a-f-]{36})/reports/(ERRORS|RESULTS)")


class TaskOperations:
    """The operations of bulk registrations."""

    def __init__(self, aws: AwsIot) -> None:
        self._tasks = aws.tasks
        self._aws = aws

    async def start_thing_registration_task(self, request: AwsRequest) -> Any:
        if _INPUT_KEY.fullmatch(key := request["inputFileKey"]) is None:
            raise BodyInvalidError(detail="inputFileKey must have 1 to 1024 letters, digits and !_.*'()/-")
        made = await self._tasks.start(
            template_of(request), request["inputFileBucket"], key, request["roleArn"], actor=request.actor
        )
        return {"taskId": made.task_id}

    async def stop_thing_registration_task(self, request: AwsRequest) -> None:
        await self._tasks.stop(request["taskId"], actor=request.actor)

    async def describe_thing_registration_task(self, request: AwsRequest) -> Any:
        return provisioning.task_json(await self._tasks.get(request["taskId"]))

    async def list_thing_registration_tasks(self, request: AwsRequest) -> Any:
        page = await self._tasks.page(request.after, request.size, request.get("status") or "")
        return request.paged("taskIds", page.items, page)

    async def list_thing_registration_task_reports(self, request: AwsRequest) -> Any:
        task, kind = await self._tasks.get(request["taskId"]), request["reportType"]
        _ = request.after, request.size  # one file: one page
        is_there = task.succeeded if kind == "RESULTS" else task.failed
        path = f"/thing-registration-tasks/{task.task_id}/reports/{kind}?link={task.link}"
        return {"resourceLinks": [self._aws.https_url() + path] if is_there else [], "reportType": kind}


def report_of(path: str) -> tuple[str, bool] | None:
    """Return task ID and report type of a report path; None for other paths."""
    found = _REPORT.fullmatch(path)
    return None if found is None else (found[1], found[2] == "RESULTS")


async def report(aws: AwsIot, request: Request, task_id: str, *, is_done: bool) -> Response:
    """Return a report to a holder of its link. Raise `UnknownTaskError`."""
    task = await aws.tasks.get(task_id)
    if not hmac.compare_digest(request.query_params.get("link", "").encode(), task.link.encode()):
        raise UnknownTaskError(task=task_id)

    async def lines() -> AsyncIterator[bytes]:
        async for line in aws.tasks.lines(task_id, is_done=is_done):
            said = json.loads(line.body)
            told = {"response": said} if is_done else said
            yield json.dumps({"lineNumber": line.line, **told}).encode() + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")
