"""What is said to be needed at AWS is no more than the program can ask for."""

import inspect
import re

import pytest
from botocore.loaders import Loader

from birthmark.fleet import aws_iot_client, aws_target
from birthmark.fleet.aws_diff_and_rollback import denied_action
from birthmark.fleet.required_permissions import AWS, AZURE, HUB, FleetTask, azure_rights, iam_policy

CALLED = re.compile(r"(?:_iot\.(?!get_paginator)|(?:get_paginator|_all)\(\")([a-z_]+)")


def asked() -> set[str]:
    """The calls that stand in the program."""
    found = set(CALLED.findall(inspect.getsource(aws_target) + inspect.getsource(aws_iot_client))) - {
        "meta",
        "exceptions",
    }
    return {"".join(part.capitalize() for part in name.split("_")).replace("WithoutCa", "WithoutCA") for name in found}


def test_each_right_is_one_that_the_program_asks_for_and_all_are_there() -> None:
    named = {action for actions in AWS.values() for action in actions}
    assert named == asked()


def test_each_is_an_operation_of_the_service() -> None:
    operations = Loader().load_service_model("iot", "service-2")["operations"]
    assert all(action in operations for actions in AWS.values() for action in actions)


@pytest.mark.parametrize("work", list(FleetTask))
def test_a_policy_names_each_once_and_every_work_has_rights(work: FleetTask) -> None:
    actions = iam_policy(work)["Statement"][0]["Action"]
    assert actions == sorted({f"iot:{action}" for action in AWS[work]})
    assert AZURE[work]


@pytest.mark.parametrize("work", list(FleetTask))
def test_rights_at_a_hub_are_named_only_for_work_that_asks_it(work: FleetTask) -> None:
    rights = azure_rights(work)
    assert rights["provisioning service"] == AZURE[work]
    assert rights.get("hub") == HUB.get(work)


@pytest.mark.parametrize(
    ("code", "reason", "action"),
    [
        (
            "AccessDeniedException",
            "User: x is not authorized to perform: iot:CreateThing on resource: y",
            "iot:CreateThing",
        ),
        ("UnauthorizedException", "no", "this"),
        ("ThrottlingException", "is not authorized to perform: iot:CreateThing", None),
    ],
)
def test_a_denial_names_the_action(code: str, reason: str, action: str | None) -> None:
    assert denied_action(code, reason) == action
