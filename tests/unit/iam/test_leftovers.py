"""What actions leave to whoever does them: each action is sorted, and a narrowed token leaves one device's alone."""

import shlex
from typing import Any

import pytest

from birthmark.cli.command_tree import TREE, CommandGroup, Leaf
from birthmark.iam.lasting_access_grants import LEFT, restrict_to_one_device
from birthmark.iam.missing_right_errors import NarrowedTokenError
from birthmark.webconsole.event_labels import ACTIONS

LEAVES_NOTHING = """
alert.over alert.raised alert.unsilence audit.break awsiot.authorizer_delete awsiot.ca_delete
awsiot.certificate_delete awsiot.connection_delete awsiot.default_authorizer_clear
awsiot.job_cancel awsiot.job_delete awsiot.job_execution_cancel
awsiot.job_execution_delete awsiot.job_pause
awsiot.job_template_delete awsiot.job_update awsiot.key_remove awsiot.policy_delete awsiot.policy_detach
awsiot.registration_code_delete awsiot.role_alias_delete awsiot.rule_delete awsiot.rule_destination_confirm
awsiot.rule_destination_delete awsiot.rule_disable awsiot.rule_replay awsiot.shadow_delete awsiot.shadow_update
awsiot.stream_remove awsiot.tag awsiot.task_stop awsiot.template_delete
awsiot.thing_create awsiot.thing_delete awsiot.thing_detach
awsiot.thing_group_delete awsiot.thing_group_remove awsiot.thing_type_create
awsiot.thing_type_delete awsiot.thing_type_deprecate awsiot.thing_type_update awsiot.thing_update awsiot.untag
ca.rollover.back ca.rollover.next ca.rollover.start ca.root_noted certificate.renewed certificate.revoke device.connect
device.disconnect device.lose device.refuse device.revoke dps.ca_code dps.ca_remove dps.delete dps.enrollment_delete
dps.move dps.register dps.registration_delete dps.release dps.unlink est.authority.remove est.bootstrap.remove
est.request.reject est.user.remove iothub.c2d_sent iothub.ca_code iothub.ca_remove
iothub.configuration_delete iothub.consumer_group_create
iothub.consumer_group_delete iothub.credential_issue
iothub.credential_use iothub.delete iothub.device_delete iothub.device_take_back iothub.endpoint_remove
iothub.job_cancel iothub.module_delete iothub.registry_job_cancel iothub.route_disable iothub.route_remove
iothub.route_retry iothub.twin_changed
key.revoke name.lose name.release people.allow people.approval_approve people.approval_ask people.approval_reject
people.approval_use people.command_let_in people.command_refused people.console_open people.link people.password_remove
people.role_remove people.session_end people.sign_in people.sign_in_refused people.token_remove people.user_remove
server.machine_join server.machine_lead server.restored webhook.pause webhook.put_aside webhook.remove webhook.replay

"""
FACTS = dict.fromkeys(("hub", "id", "place", "policy", "role", "scope", "thumbprint"), "x")


def test_every_action_is_sorted_by_what_it_leaves() -> None:
    assert set(LEFT) | set(LEAVES_NOTHING.split()) == set(ACTIONS)
    assert not set(LEFT) & set(LEAVES_NOTHING.split())


@pytest.mark.parametrize("action", LEFT)
def test_the_command_that_ends_it_is_a_command(action: str) -> None:
    words = shlex.split(LEFT[action].command({"subject": "x", "detail": FACTS}))
    node: CommandGroup | Leaf = TREE
    for word in words[1:] if words[:1] == ["birthmark"] else ():
        if isinstance(node, Leaf):
            break
        node = node.commands[word]
    assert not words or words[:2] == ["aws", "iot"] or isinstance(node, Leaf), words


@pytest.mark.parametrize("action", [action for action, left in LEFT.items() if not left.is_of_a_device])
def test_a_narrowed_token_leaves_nothing_wider_than_a_device(action: str) -> None:
    with pytest.raises(NarrowedTokenError):
        restrict_to_one_device(None)(action, {})


@pytest.mark.parametrize("action", [action for action, left in LEFT.items() if left.is_of_a_device])
def test_a_narrowed_token_enrolls_a_device(action: str) -> None:
    assert restrict_to_one_device(None)(action, {"kind": "individual"}) is None


@pytest.mark.parametrize(
    "detail",
    [
        {"kind": "group"},
        {"kind": "individual", "webhook": "hooks.example.com"},
        {"thing_group": "all"},
        {"lasting": True},
        {"wide": True},
    ],
)
def test_an_enrollment_group_and_a_webhook_are_wider_than_a_device(detail: dict[str, Any]) -> None:
    with pytest.raises(NarrowedTokenError):
        restrict_to_one_device(None)("dps.enrollment_put", detail)


@pytest.mark.parametrize(
    "detail", [{"status": "INACTIVE"}, {"active": False}, {"enabled": False}, {"continuous": False}]
)
def test_what_switches_off_leaves_nothing(detail: dict[str, Any]) -> None:
    assert restrict_to_one_device(None)("awsiot.ca_update", detail) is None


def test_what_is_counted_for_everybody_is_counted_for_a_narrowed_token() -> None:
    assert restrict_to_one_device(lambda action, _detail: action)("device.revoke", {}) == "device.revoke"
