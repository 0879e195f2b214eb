"""Bulk registrations that run at the same time: each has its turn, and each tries every line once."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from birthmark.awsiot.model import TaskStatus
from birthmark.awsiot.service import AwsIot, registration_tasks
from birthmark.awsiot.service.s3_buckets import Buckets
from support.aws.account import ME, an_aws_account

pytestmark = pytest.mark.integration
THING = {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "Serial"}}}
TEMPLATE = json.dumps({"Parameters": {"Serial": {"Type": "String"}}, "Resources": {"thing": THING}})


async def begun(aws: AwsIot, directory: Path, name: str, lines: int) -> str:
    """Begin to register so many things from a file."""
    aws.tasks.buckets = Buckets(directory)
    (directory / "fleet").mkdir(exist_ok=True)
    text = "".join(json.dumps({"Serial": f"{name}-{number}"}) + "\n" for number in range(lines))
    (directory / "fleet" / name).write_text(text)
    return (await aws.tasks.start(TEMPLATE, "fleet", name, "arn:aws:iam::000000000000:role/x", **ME)).task_id


async def over(aws: AwsIot, task_id: str) -> None:
    while (await aws.tasks.get(task_id)).status is TaskStatus.IN_PROGRESS:
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def running(aws: AwsIot) -> AsyncIterator[None]:
    going = asyncio.create_task(aws.tasks.keep_running())
    yield
    going.cancel()
    await asyncio.wait([going])


async def test_a_short_one_does_not_wait_for_a_long_one_that_began_before(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registration_tasks, "_PORTION", 2)
    async with an_aws_account(database_url) as (aws, clock):
        long = await begun(aws, tmp_path, "long", 40)
        clock.move(timedelta(seconds=1))
        short = await begun(aws, tmp_path, "short", 1)
        async with running(aws), asyncio.timeout(30):
            await over(aws, short)
            assert (await aws.tasks.get(long)).status is TaskStatus.IN_PROGRESS
            await over(aws, long)
        assert (await aws.tasks.get(long)).succeeded == 40
