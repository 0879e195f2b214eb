"""What jobs keep and heed of each member of their requests, and what they refuse by its name."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from support.aws.clients import until
from support.aws.device import ARN

Case = Callable[[Any], None]
Needs = Callable[[Any], dict[str, Any]]
ROLLOUT = {
    "maximumPerMinute": 50,
    "exponentialRate": {
        "baseRatePerMinute": 10,
        "incrementFactor": 1.5,
        "rateIncreaseCriteria": {"numberOfNotifiedThings": 5, "numberOfSucceededThings": 4},
    },
}
FAILURES = {"failureType": "ALL", "action": "CANCEL", "thresholdPercentage": 20.0, "minNumberOfExecutedThings": 4}
ROLE = "arn:aws:iam::000000000000:role/r"
SETTINGS: dict[str, Any] = {
    "jobExecutionsRolloutConfig": ROLLOUT,
    "abortConfig": {"criteriaList": [FAILURES]},
    "timeoutConfig": {"inProgressTimeoutInMinutes": 30},
    "jobExecutionsRetryConfig": {"criteriaList": [{"failureType": "FAILED", "numberOfRetries": 2}]},
    "presignedUrlConfig": {"roleArn": ROLE, "expiresInSec": 60},
}
_PATHS = (
    "jobExecutionsRolloutConfig.maximumPerMinute",
    *(
        f"jobExecutionsRolloutConfig.exponentialRate.{name}"
        for name in (
            "baseRatePerMinute",
            "incrementFactor",
            "rateIncreaseCriteria.numberOfNotifiedThings",
            "rateIncreaseCriteria.numberOfSucceededThings",
        )
    ),
    "abortConfig.criteriaList",
    "timeoutConfig.inProgressTimeoutInMinutes",
    "jobExecutionsRetryConfig.criteriaList",
    "presignedUrlConfig.roleArn",
    "presignedUrlConfig.expiresInSec",
)
WINDOWS = [{"startTime": "cron(0 3 ? * SUN *)", "durationInMinutes": 90}]
TAGS = [{"Key": "site", "Value": "7"}]


def a_target(a: Any) -> list[str]:
    return [f"{ARN}thing/{a.thing()}"]


def a_job(a: Any, **more: Any) -> str:
    job_id: str = a.name
    a.iot.create_job(jobId=job_id, **{"targets": a_target(a), "document": "{}", **more})
    return job_id


def on_a_thing(a: Any, **more: Any) -> dict[str, str]:
    """Return the names of a job's execution that is there."""
    thing = a.thing()
    names = {"jobId": a_job(a, targets=[f"{ARN}thing/{thing}"], **more), "thingName": thing}
    until(lambda: a.iot.list_job_executions_for_thing(thingName=thing)["executionSummaries"])
    return names


def told(a: Any, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = a.iot.describe_job(jobId=job_id)["job"]
    return found


def _same(found: Any, wanted: Any) -> None:
    assert found == wanted


def _settings(a: Any) -> None:
    assert told(a, a_job(a, **SETTINGS)).items() >= SETTINGS.items()


def _updated_settings(a: Any) -> None:
    job_id = a_job(a)
    a.iot.update_job(jobId=job_id, **SETTINGS)
    assert told(a, job_id).items() >= SETTINGS.items()


def a_template(a: Any, **more: Any) -> str:
    name: str = a.name
    a.iot.create_job_template(jobTemplateId=name, **{"description": "d", "document": '{"a": 1}', **more})
    return name


def _template_settings(a: Any) -> None:
    assert a.iot.describe_job_template(jobTemplateId=a_template(a, **SETTINGS)).items() >= SETTINGS.items()


def _of_template(a: Any) -> None:
    arn = a.iot.describe_job_template(jobTemplateId=a_template(a))["jobTemplateArn"]
    job_id = a.name
    a.iot.create_job(jobId=job_id, targets=a_target(a), jobTemplateArn=arn)
    assert told(a, job_id)["jobTemplateArn"] == arn
    assert a.iot.get_job_document(jobId=job_id)["document"] == '{"a": 1}'


def _template_of_a_job(a: Any) -> None:
    job_id, name = a_job(a, document='{"b": 2}'), a.name
    a.iot.create_job_template(jobTemplateId=name, description="d", jobArn=told(a, job_id)["jobArn"])
    assert a.iot.describe_job_template(jobTemplateId=name)["document"] == '{"b": 2}'


def _sourced(a: Any) -> None:
    folder = a.server.data / "buckets" / "documents"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.json").write_text('{"c": 3}')
    source, job_id, name = "https://s3.us-east-1.amazonaws.com/documents/job.json", a.name, a.name
    a.iot.create_job(jobId=job_id, targets=a_target(a), documentSource=source)
    assert a.iot.describe_job(jobId=job_id)["documentSource"] == source
    assert a.iot.get_job_document(jobId=job_id)["document"] == '{"c": 3}'
    a.iot.create_job_template(jobTemplateId=name, description="d", documentSource=source)
    assert a.iot.describe_job_template(jobTemplateId=name)["documentSource"] == source


def _with_parameters(a: Any) -> None:
    document = '{"d": "${aws:iot:parameter:x}"}'
    job_id = a_job(a, document=document, documentParameters={"x": "4"})
    for is_before, wanted in ((True, document), (False, '{"d": "4"}')):
        assert a.iot.get_job_document(jobId=job_id, beforeSubstitution=is_before)["document"] == wanted
        found = a.iot.describe_job(jobId=job_id, beforeSubstitution=is_before)["job"]
        assert found["documentParameters"] == {"x": "4"}


def _scheduled(a: Any) -> None:
    now = datetime.now(UTC)
    config: dict[str, Any] = {
        "startTime": f"{now + timedelta(hours=1):%Y-%m-%dT%H:%M}",
        "endTime": f"{now + timedelta(days=90):%Y-%m-%dT%H:%M}",
        "endBehavior": "FORCE_CANCEL",
        "maintenanceWindows": WINDOWS,
    }
    job_id = a_job(a, targetSelection="CONTINUOUS", schedulingConfig=config)
    found = told(a, job_id)
    assert (found["status"], found["schedulingConfig"]) == ("SCHEDULED", config)
    assert len(found["scheduledJobRollouts"]) == 7
    assert job_id in {one["jobId"] for one in a.iot.list_jobs(status="SCHEDULED", maxResults=250)["jobs"]}
    a.iot.cancel_job(jobId=job_id)


def _windows(a: Any) -> None:
    name, job_id = a_template(a, maintenanceWindows=WINDOWS), a.name
    found = a.iot.describe_job_template(jobTemplateId=name)
    assert found["maintenanceWindows"] == WINDOWS
    given = {"targets": a_target(a), "jobTemplateArn": found["jobTemplateArn"], "targetSelection": "CONTINUOUS"}
    a.iot.create_job(jobId=job_id, **given)
    assert told(a, job_id)["schedulingConfig"] == {"maintenanceWindows": WINDOWS}
    again = a.name
    a.iot.create_job_template(jobTemplateId=again, description="d", jobArn=told(a, job_id)["jobArn"])
    assert a.iot.describe_job_template(jobTemplateId=again)["maintenanceWindows"] == WINDOWS


def _managed(a: Any) -> None:
    (only,) = a.iot.list_managed_job_templates(templateName="AWS-Reboot")["managedJobTemplates"]
    told = a.iot.describe_managed_job_template(templateName="AWS-Reboot", templateVersion="1.0")
    assert (only["templateArn"], only["templateVersion"]) == (told["templateArn"], "1.0")
    assert "ResourceNotFound" in a.refuses(
        "DescribeManagedJobTemplate", templateName="AWS-Reboot", templateVersion="9.0"
    )


def _tagged(a: Any) -> None:
    for arn in (
        told(a, a_job(a, tags=TAGS))["jobArn"],
        a.iot.describe_job_template(jobTemplateId=a_template(a, tags=TAGS))["jobTemplateArn"],
    ):
        assert a.iot.list_tags_for_resource(resourceArn=arn)["tags"] == TAGS


def _selected(a: Any) -> None:
    job_id = a_job(a, targetSelection="CONTINUOUS")
    assert told(a, job_id)["targetSelection"] == "CONTINUOUS"
    for selection, is_there in (("CONTINUOUS", True), ("SNAPSHOT", False)):
        found = a.iot.get_paginator("list_jobs").paginate(targetSelection=selection)
        assert (job_id in {one["jobId"] for page in found for one in page["jobs"]}) == is_there


def _listed(a: Any) -> None:
    group = a.group()
    job_id = a_job(a, targets=[f"{ARN}thinggroup/{group}"], targetSelection="CONTINUOUS")
    assert [one["jobId"] for one in a.iot.list_jobs(thingGroupName=group, status="IN_PROGRESS")["jobs"]] == [job_id]
    assert a.iot.list_jobs(thingGroupName=group, status="CANCELED")["jobs"] == []


def _described(a: Any) -> None:
    job_id = a_job(a, description="one")
    assert told(a, job_id)["description"] == "one"
    a.iot.update_job(jobId=job_id, description="two")
    assert told(a, job_id)["description"] == "two"


def _canceled(a: Any) -> None:
    job_id = a_job(a)
    a.iot.cancel_job(jobId=job_id, reasonCode="WHY", comment="because", force=True)
    found = told(a, job_id)
    assert (found["reasonCode"], found["comment"], found["forceCanceled"]) == ("WHY", "because", True)


def _commented(a: Any) -> None:
    job_id = a_job(a, targetSelection="CONTINUOUS")
    a.iot.associate_targets_with_job(jobId=job_id, targets=[f"{ARN}thinggroup/{a.group()}"], comment="more")
    assert (told(a, job_id)["comment"], len(told(a, job_id)["targets"])) == ("more", 2)


def _deleted(a: Any) -> None:
    job_id = a_job(a)
    assert "InvalidStateTransition" in a.refuses("DeleteJob", jobId=job_id)
    a.iot.delete_job(jobId=job_id, force=True)


def _execution_canceled(a: Any) -> None:
    names = on_a_thing(a)
    a.jobs.start_next_pending_job_execution(thingName=names["thingName"], statusDetails={"a": "1"})
    assert "VersionConflict" in a.refuses("CancelJobExecution", force=True, expectedVersion=7, **names)
    assert "InvalidStateTransition" in a.refuses("CancelJobExecution", **names)
    a.iot.cancel_job_execution(force=True, expectedVersion=2, statusDetails={"b": "2"}, **names)
    found = a.iot.describe_job_execution(**names)["execution"]
    assert (found["forceCanceled"], found["statusDetails"]["detailsMap"]) == (True, {"b": "2"})


def _execution_deleted(a: Any) -> None:
    names = on_a_thing(a)
    assert "InvalidStateTransition" in a.refuses("DeleteJobExecution", executionNumber=1, **names)
    a.iot.delete_job_execution(executionNumber=1, force=True, **names)


def _numbered(a: Any) -> None:
    names = on_a_thing(a)
    for operation in ("DescribeJobExecution", "DescribeJobExecution (iot-jobs-data)"):
        assert a.call(operation, executionNumber=1, **names)["execution"]["executionNumber"] == 1
        assert "ResourceNotFound" in a.refuses(operation, executionNumber=2, **names)


def _executions(a: Any) -> None:
    names = on_a_thing(a)
    for operation, name in (("ListJobExecutionsForJob", "jobId"), ("ListJobExecutionsForThing", "thingName")):
        for status, number in (("QUEUED", 1), ("FAILED", 0)):
            found = a.call(operation, status=status, **{name: names[name]})
            assert len(found["executionSummaries"]) == number
    other = a.iot.list_job_executions_for_thing(thingName=names["thingName"], jobId="other")
    assert other["executionSummaries"] == []


def _documented(a: Any) -> None:
    names = on_a_thing(a)
    for whole in (True, False):
        found = a.jobs.describe_job_execution(includeJobDocument=whole, **names)["execution"]
        assert ("jobDocument" in found) == whole


def _device(a: Any) -> None:
    names = on_a_thing(a)
    begun = a.jobs.start_next_pending_job_execution(
        thingName=names["thingName"], statusDetails={"a": "1"}, stepTimeoutInMinutes=2
    )["execution"]
    assert begun["statusDetails"] == {"a": "1"}
    assert begun["approximateSecondsBeforeTimedOut"] <= 120
    given = {"status": "IN_PROGRESS", "statusDetails": {"b": "2"}, "stepTimeoutInMinutes": 60}
    assert "InvalidRequest" in a.refuses("UpdateJobExecution", expectedVersion=9, **given, **names)
    assert "ResourceNotFound" in a.refuses("UpdateJobExecution", executionNumber=9, **given, **names)
    answer = a.jobs.update_job_execution(
        **given, **names, expectedVersion=2, executionNumber=1, includeJobExecutionState=True, includeJobDocument=True
    )
    assert (answer["executionState"]["statusDetails"], answer["jobDocument"]) == ({"b": "2"}, "{}")
    assert a.iot.describe_job_execution(**names)["execution"]["approximateSecondsBeforeTimedOut"] > 3000


WORDS: dict[str, str] = {}
"""Structures that are refused whole, by their own name."""
REFUSED: dict[str, tuple[Needs, dict[str, dict[str, Any]]]] = {
    "CreateJob": (
        lambda a: {"jobId": a.name, "targets": a_target(a), "document": "{}"},
        {
            "namespaceId": {"namespaceId": "n"},
            "destinationPackageVersions": {
                "destinationPackageVersions": ["arn:aws:iot:us-east-1:000000000000:package/p/version/1"]
            },
        },
    ),
    "CreateJobTemplate": (
        lambda a: {"jobTemplateId": a.name, "description": "d", "document": "{}"},
        {
            "destinationPackageVersions": {
                "destinationPackageVersions": ["arn:aws:iot:us-east-1:000000000000:package/p/version/1"]
            },
        },
    ),
    "UpdateJob": (
        lambda a: {"jobId": a_job(a), "description": "d"},
        {
            "namespaceId": {"namespaceId": "n"},
        },
    ),
    "ListJobs": (
        lambda _: {},
        {"thingGroupId": {"thingGroupId": "g"}, "namespaceId": {"namespaceId": "n"}},
    ),
    "AssociateTargetsWithJob": (
        lambda a: {
            "jobId": a_job(a, targetSelection="CONTINUOUS"),
            "targets": [f"{ARN}thinggroup/{a.group()}"],
        },
        {"namespaceId": {"namespaceId": "n"}},
    ),
    "DeleteJob": (lambda a: {"jobId": a_job(a), "force": True}, {"namespaceId": {"namespaceId": "n"}}),
    "DeleteJobExecution": (
        lambda a: {**on_a_thing(a), "executionNumber": 1, "force": True},
        {"namespaceId": {"namespaceId": "n"}},
    ),
    "ListJobExecutionsForThing": (lambda a: {"thingName": a.thing()}, {"namespaceId": {"namespaceId": "n"}}),
}
KEPT: dict[str, dict[str, Case]] = {
    "CreateJob": {
        **dict.fromkeys(_PATHS, _settings),
        "document": lambda a: _same(
            a.iot.get_job_document(jobId=a_job(a, document=json.dumps([{}][0])))["document"], "{}"
        ),
        "description": _described,
        "targetSelection": _selected,
        "tags": _tagged,
        "jobTemplateArn": _of_template,
        "documentSource": _sourced,
        "documentParameters": _with_parameters,
        **dict.fromkeys(
            (f"schedulingConfig.{name}" for name in ("startTime", "endTime", "endBehavior", "maintenanceWindows")),
            _scheduled,
        ),
    },
    "DescribeJob": {"beforeSubstitution": _with_parameters},
    "GetJobDocument": {"beforeSubstitution": _with_parameters},
    "ListManagedJobTemplates": {"templateName": _managed},
    "DescribeManagedJobTemplate": {"templateVersion": _managed},
    "UpdateJob": {**dict.fromkeys(_PATHS, _updated_settings), "description": _described},
    "CreateJobTemplate": {
        **dict.fromkeys(_PATHS, _template_settings),
        "jobArn": _template_of_a_job,
        "document": _of_template,
        "documentSource": _sourced,
        "maintenanceWindows": _windows,
        "tags": _tagged,
    },
    "ListJobs": {"status": _listed, "thingGroupName": _listed, "targetSelection": _selected},
    "CancelJob": dict.fromkeys(("reasonCode", "comment", "force"), _canceled),
    "DeleteJob": {"force": _deleted},
    "AssociateTargetsWithJob": {"comment": _commented},
    "DescribeJobExecution": {"executionNumber": _numbered},
    "CancelJobExecution": dict.fromkeys(("force", "expectedVersion", "statusDetails"), _execution_canceled),
    "DeleteJobExecution": {"force": _execution_deleted},
    "ListJobExecutionsForJob": {"status": _executions},
    "ListJobExecutionsForThing": {"status": _executions, "jobId": _executions},
    "DescribeJobExecution (iot-jobs-data)": {"executionNumber": _numbered, "includeJobDocument": _documented},
    "StartNextPendingJobExecution": dict.fromkeys(("statusDetails", "stepTimeoutInMinutes"), _device),
    "UpdateJobExecution": dict.fromkeys(
        (
            *("statusDetails", "stepTimeoutInMinutes", "expectedVersion", "executionNumber"),
            *("includeJobExecutionState", "includeJobDocument"),
        ),
        _device,
    ),
}
