"""Bulk registration: a file of parameters, one line per device, registered in order with a template.

The commit of each device includes the progress and the line's result. After a crash, or on another worker, each line is
therefore tried once.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Any

from birthmark.awsiot.model import Account, RegistrationTask, TaskLine, TaskStatus
from birthmark.awsiot.rules.provisioning_plan_model import RegistrationFailedError
from birthmark.awsiot.rules.provisioning_templates import parse_template
from birthmark.awsiot.service.base import AccountService
from birthmark.awsiot.service.s3_buckets import Buckets
from birthmark.awsiot.service.thing_registration import ThingRegistration
from birthmark.awsiot.store import provisioning as store
from birthmark.clock_and_entropy import new_uuid
from birthmark.errors import BirthmarkError, ChangedMeanwhileError, NotFoundError, PolicyError, UnavailableError
from birthmark.store import Changes
from birthmark.store.pagination import Page, page_of
from birthmark.supervised_tasks import Leads, always
from birthmark.untrusted_json_and_text import check_keys_once, read_json

MAX_RUNNING = 10
KEEP = timedelta(days=30)
_LOOK_S = 2.0
_PORTION = 64
_OVER = object()
_PAGE = 500


class UnknownTaskError(NotFoundError):
    """The bulk registration task does not exist."""

    code = "awsiot.unknown_task"
    message = "Thing registration task {task} not found"
    fix = "List tasks: `aws iot list-thing-registration-tasks`. The server deletes tasks 30 days after they end."
    task: str


class TooManyTasksError(PolicyError):
    """The account has the maximum number of bulk registration tasks."""

    code = "awsiot.task_limit"
    cause = "Ten bulk registration tasks are in progress, the maximum."
    fix = (
        "Wait until a task ends, or stop a task. List the tasks in progress: `aws iot list-thing-registration-tasks "
        "--status InProgress`"
    )


class TaskOverError(PolicyError):
    """The bulk registration task has ended and cannot be stopped."""

    code = "awsiot.task_over"
    message = "The task {task} is {status} and cannot be stopped"
    fix = "Show the result: `aws iot describe-thing-registration-task --task-id {task}`"
    status: str
    task: str


@dataclass(slots=True)
class RegistrationTasks(AccountService):
    """Bulk registration tasks of the account; `leads` returns whether this worker runs them."""

    account: Account
    provisioning: ThingRegistration
    buckets: Buckets
    leads: Leads = always
    _started: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self, body: str, bucket: str, key: str, role_arn: str, *, actor: str) -> RegistrationTask:
        """Start a task. Raise `TemplateInvalidError`, `BucketKeyError`, `BucketFileError` or `TooManyTasksError`."""
        parse_template(body)
        await asyncio.to_thread(self.buckets.check, bucket, key)
        if len(await self.database.all(store.RUNNING)) >= MAX_RUNNING:
            raise TooManyTasksError
        now = self.clock.now()
        made = RegistrationTask(
            task_id=new_uuid(self.entropy),
            body=body,
            bucket=bucket,
            key=key,
            role_arn=role_arn,
            status=TaskStatus.IN_PROGRESS,
            message="",
            done=0,
            total=0,
            succeeded=0,
            failed=0,
            link=self.entropy.token(32).hex(),
            actor=str(actor),
            created_at=now,
            modified_at=now,
        )
        changes = Changes().run(store.ADD_TASK, **store.TASKS.row(made))
        await self.database.commit(changes.audit(actor, "awsiot.task_start", made.task_id, file=f"{bucket}/{key}"))
        self._started.set()
        return made

    async def get(self, task_id: str) -> RegistrationTask:
        """Return a task. Raise `UnknownTaskError`."""
        row = await self.database.one(store.GET_TASK, task_id=task_id)
        if row is None:
            raise UnknownTaskError(task=task_id[:40])
        return store.TASKS.of(row)

    async def stop(self, task_id: str, *, actor: str) -> None:
        """Stop a task. Raise `UnknownTaskError`, `TaskOverError`."""
        task = await self.get(task_id)
        over = TaskOverError(task=task_id, status=task.status.value)
        if task.status is not TaskStatus.IN_PROGRESS:
            raise over
        changes = self._ending(task, TaskStatus.CANCELLED, "it was stopped", otherwise=over)
        await self.database.commit(changes.audit(actor, "awsiot.task_stop", task_id))

    async def page(self, after: str, size: int, status: str) -> Page[str]:
        """Return the IDs of tasks, only those of `status` if it is not empty."""
        rows = await self.database.all(store.LIST_TASKS, after=after, limit=size + 1, status=status)
        ids = [str(row["task_id"]) for row in rows]
        return page_of(ids, size, ids)

    async def lines(self, task_id: str, *, is_done: bool) -> AsyncIterator[TaskLine]:
        """Yield the results of the registered lines, or of the failed ones."""
        after = 0
        while rows := await self.database.all(
            store.LINES_OF, task_id=task_id, done=int(is_done), after=after, limit=_PAGE
        ):
            for row in rows:
                yield store.LINES.of(row)
            after = rows[-1]["line"]

    async def keep_running(self) -> None:
        """Run the started tasks, including those of a former leader, while the server runs."""
        running = dict[str, AsyncIterator[None]]()
        while True:
            self._started.clear()
            if await self.leads():
                for task in (store.TASKS.of(row) for row in await self.database.all(store.RUNNING)):
                    running.setdefault(task.task_id, self._run_batches(task))
                for task_id, portions in list(running.items()):
                    if await anext(portions, _OVER) is _OVER:
                        del running[task_id]
                await self._forget_old()
            else:
                running.clear()
            if not running:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await self._started.wait()

    async def _run_batches(self, task: RegistrationTask) -> AsyncIterator[None]:
        """Process the remaining lines of a task in batches, yielding between them to other work."""
        try:
            total = await asyncio.to_thread(self._count, task)
            if task.total != total:
                await self._begin(task, total)
            lines = await asyncio.to_thread(self._from, task)
            done = task.done
            while portion := await asyncio.to_thread(lambda: list(islice(lines, _PORTION))):
                for line in portion:
                    done += 1
                    await self._try(task, done, line)
                yield
            await self.database.commit(self._ending(task, TaskStatus.COMPLETED, ""))
        except ChangedMeanwhileError:  # stopped, or another worker continues it
            return
        except UnavailableError:
            raise
        except BirthmarkError as error:
            await self.database.commit(self._ending(task, TaskStatus.FAILED, str(error)[:500]))

    def _count(self, task: RegistrationTask) -> int:
        return sum(1 for _ in self.buckets.lines(task.bucket, task.key))

    def _from(self, task: RegistrationTask) -> Iterator[bytes]:
        lines = self.buckets.lines(task.bucket, task.key)
        return islice(lines, task.done, None)

    async def _begin(self, task: RegistrationTask, total: int) -> None:
        seen: dict[str, Any] = {"key_task_id": task.task_id, "key_done": task.done, "key_status": task.status.value}
        changes = Changes().run(store.BEGIN, expect=1, **seen, total=total, modified_at=self.clock.micros())
        await self.database.commit(changes)

    async def _try(self, task: RegistrationTask, number: int, line: bytes) -> None:
        """Register the device of one line or record the failure, together with the progress."""
        try:
            parameters = read_json(line, dict[str, str], _unreadable)
            check_keys_once(line.decode(), _unreadable)
            plan = parse_template(task.body).plan(parameters)
            # The notes of a line are names, which its registration decides.
            await self.provisioning.register(
                plan,
                actor=task.actor,
                noting=lambda made: self._progress_changes(task, number, made.to_response(self.account)),
            )
        except (ChangedMeanwhileError, UnavailableError):
            raise
        except BirthmarkError as error:
            said = {"errorCode": error.code, "errorMessage": str(error)}
            await self.database.commit(self._progress_changes(task, number, said, is_done=False))

    def _progress_changes(
        self, task: RegistrationTask, number: int, values: dict[str, Any], *, is_done: bool = True
    ) -> Changes:
        """Return the writes that count a line, conditional on the current progress and a running task."""
        seen: dict[str, Any] = {
            "key_task_id": task.task_id,
            "key_done": number - 1,
            "key_status": TaskStatus.IN_PROGRESS.value,
        }
        tried = TaskLine(task.task_id, number, is_done, json.dumps(values))
        changes = Changes().run(store.STEP[is_done], expect=1, **seen, modified_at=self.clock.micros())
        return changes.run(store.ADD_LINE, **store.LINES.row(tried))

    def _ending(
        self, task: RegistrationTask, status: TaskStatus, message: str, otherwise: BirthmarkError | None = None
    ) -> Changes:
        seen: dict[str, Any] = {"key_task_id": task.task_id, "key_status": TaskStatus.IN_PROGRESS.value}
        told: dict[str, Any] = {"status": status.value, "message": message, "modified_at": self.clock.micros()}
        return Changes().run(store.END, expect=1, otherwise=otherwise, **seen, **told)

    async def _forget_old(self) -> None:
        before = self.clock.micros() - KEEP // timedelta(microseconds=1)
        for row in await self.database.all(store.OLD_TASKS, before=before):
            changes = Changes().run(store.FORGET_TASK, task_id=row["task_id"])
            await self.database.commit(changes.run(store.FORGET_LINES, task_id=row["task_id"]))


def _unreadable(detail: str) -> RegistrationFailedError:
    return RegistrationFailedError(step="the line", detail=f"it is not a JSON object of strings: {detail}")
