"""AWS IoT's control plane: an SDK is refused, the AWS CLI puts it right."""

import contextlib
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError
from fixes.desk import Desk, Row, steps, typing
from fixes.scene import Scene, commands_in

from support.aws.device import document, statement

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
_ANY = document(statement("iot:*"))


def call(operation: str, **arguments: Any) -> Callable[[Desk], Any]:
    """Return an action of the SDK; a function among the arguments is asked for its value."""

    def act(desk: Desk) -> Any:
        given = {name: value(desk) if callable(value) else value for name, value in arguments.items()}
        return getattr(desk.iot, operation)(**given)

    return act


def device(name: str, **options: Any) -> Callable[[Desk], object]:
    return lambda desk: desk.make_device(name, **options)


def registered(name: str) -> Callable[[Desk], None]:
    """Make a device whose certificate is on record and ACTIVE."""
    return steps(device(name), call("register_certificate_without_ca", certificatePem=pem_of, status="ACTIVE"))


def pem_of(desk: Desk) -> str:
    assert desk.device is not None
    return desk.device.certificate_file.read_text()


def id_of(desk: Desk) -> str:
    assert desk.device is not None
    return desk.device.holder.certificate.thumbprint.hex()


def arn_of(desk: Desk) -> str:
    arn = desk.iot.describe_certificate(certificateId=id_of(desk))["certificateDescription"]["certificateArn"]
    return str(arn)


def root(desk: Desk) -> str:
    return desk.text("ca/root.pem")


def register_ca(desk: Desk) -> None:
    """Register the CA in DEFAULT mode, with the proof when it was made."""
    proof = desk.path("proof.pem")
    more = {"verificationCertificate": proof.read_text()} if proof.exists() else {}
    desk.iot.register_ca_certificate(caCertificate=desk.text("own/root.pem"), **more)


_VERSIONS = [call("create_policy_version", policyName="fix-versions", policyDocument=_ANY) for _ in range(4)]
_POLICIES = [
    step
    for number in range(10)
    for step in (
        call("create_policy", policyName=f"fix-limit-{number}", policyDocument=_ANY),
        call("attach_policy", policyName=f"fix-limit-{number}", target=arn_of),
    )
]

_MQTT5 = {"propagatingAttributes": [{"userPropertyKey": "site", "thingAttribute": "site"}]}
_FIFTY_ONE = [{"Key": f"key-{number}", "Value": ""} for number in range(51)]
_LINE = [
    call("create_thing_group", thingGroupName="fix-1"),
    *(
        call("create_thing_group", thingGroupName=f"fix-{number}", parentGroupName=f"fix-{number - 1}")
        for number in range(2, 8)
    ),
]
_NAMES = [f"fix-in-{number}" for number in range(11)]
_DYNAMIC = call("create_dynamic_thing_group", thingGroupName="fix-dynamic", queryString="*")


def _when_built(scene: Scene, fix: str) -> None:
    """Type a search as it stands: the row before it has switched the index on, which is built meanwhile."""
    (command, *_), end = commands_in(fix), time.monotonic() + 60
    while (done := scene.type(command)).returncode:
        assert "is being built" in done.stderr, f"{command}\n{done.stdout}{done.stderr}"
        assert time.monotonic() < end
        time.sleep(0.2)


def _index(desk: Desk) -> None:
    """Switch the index of things on, and wait until it is built."""
    desk.iot.update_indexing_configuration(thingIndexingConfiguration={"thingIndexingMode": "REGISTRY"})
    while desk.iot.describe_index(indexName="AWS_Things")["indexStatus"] != "ACTIVE":
        time.sleep(0.05)


def _a_hundred_dynamic_groups(desk: Desk) -> None:
    for number in range(100):
        with contextlib.suppress(ClientError):  # another row may have made some
            desk.iot.create_dynamic_thing_group(thingGroupName=f"fix-many-{number}", queryString="*")


_TEN = [
    *(call("create_thing_group", thingGroupName=name) for name in _NAMES),
    call("update_thing_groups_for_thing", thingName="fix-everywhere", thingGroupsToAdd=_NAMES[:10]),
]

AWS: Mapping[str, Row] = {
    "awsiot.arn_invalid": Row(
        call("attach_policy", policyName="fix-arn", target="arn:aws:iot:x"),
        call("create_policy", policyName="fix-arn", policyDocument=_ANY),
        is_instead=True,
    ),
    "awsiot.attribute_invalid": Row(
        call("create_thing", thingName="fix-attribute", attributePayload={"attributes": {"site": "here and there"}}),
        is_instead=True,
    ),
    "awsiot.billing_group_not_served": Row(
        call("create_thing", thingName="fix-billing", billingGroupName="group"), is_instead=True
    ),
    "awsiot.ca_exists": Row(
        call("register_ca_certificate", caCertificate=root, certificateMode="SNI_ONLY"),
        call("register_ca_certificate", caCertificate=root, certificateMode="SNI_ONLY"),
        is_instead=True,
    ),
    "awsiot.ca_refused": Row(register_ca, typing("rm ca; birthmark ca init --name Own --dir own; ln -s own ca")),
    "awsiot.certificate_exists": Row(
        call("register_certificate_without_ca", certificatePem=pem_of), registered("fix-twice"), is_instead=True
    ),
    "awsiot.certificate_in_use": Row(
        call("delete_certificate", certificateId=id_of),
        steps(
            registered("fix-in-use"),
            call("create_policy", policyName="fix-in-use", policyDocument=_ANY),
            call("create_thing", thingName="fix-in-use"),
            call("attach_policy", policyName="fix-in-use", target=arn_of),
            call("attach_thing_principal", thingName="fix-in-use", principal=arn_of),
            call("update_certificate", certificateId=id_of, newStatus="INACTIVE"),
        ),
    ),
    "awsiot.certificate_refused": Row(
        lambda desk: desk.iot.register_certificate_without_ca(
            certificatePem=(desk.text("device.cert.pem") if desk.path("device.cert.pem").exists() else pem_of(desk))
        ),
        lambda desk: desk.make_device("fix-old", now=LONG_AGO),
    ),
    "awsiot.exclusive_thing": Row(
        call(
            "attach_thing_principal",
            thingName="fix-mine",
            principal=arn_of,
            thingPrincipalType="EXCLUSIVE_THING",
        ),
        steps(
            registered("fix-exclusive"),
            call("create_thing", thingName="fix-mine"),
            call("create_thing", thingName="fix-theirs"),
            call("attach_thing_principal", thingName="fix-theirs", principal=arn_of),
        ),
    ),
    "awsiot.name_invalid": Row(call("create_policy", policyName="a b", policyDocument=_ANY), is_instead=True),
    "awsiot.no_registration_code": Row(
        lambda desk: desk.iot.register_ca_certificate(
            caCertificate=desk.text("own/root.pem"), verificationCertificate=desk.text("own/root.pem")
        ),
        typing("birthmark ca init --name Uncoded --dir own"),
        is_instead=True,
    ),
    "awsiot.member_not_served": Row(
        call("create_thing_type", thingTypeName="fix-five", thingTypeProperties={"mqtt5Configuration": _MQTT5}),
        is_instead=True,
    ),
    "awsiot.operation_not_served": Row(call("list_billing_groups"), is_instead=True),
    "store.page_invalid": Row(call("list_things", nextToken="x y"), is_instead=True),
    "awsiot.policy_exists": Row(
        call("create_policy", policyName="fix-exists", policyDocument=_ANY),
        call("create_policy", policyName="fix-exists", policyDocument=_ANY),
        is_instead=True,
    ),
    "awsiot.policy_in_use": Row(
        call("delete_policy", policyName="fix-attached"),
        steps(
            registered("fix-attached"),
            call("create_policy", policyName="fix-attached", policyDocument=_ANY),
            call("attach_policy", policyName="fix-attached", target=arn_of),
        ),
    ),
    "awsiot.policy_limit": Row(
        call("attach_policy", policyName="fix-eleventh", target=arn_of),
        steps(
            registered("fix-limit"),
            *_POLICIES,
            call("create_policy", policyName="fix-eleventh", policyDocument=_ANY),
        ),
        is_instead=True,
    ),
    "awsiot.policy_malformed": Row(call("create_policy", policyName="fix-bad", policyDocument="{}"), is_instead=True),
    "awsiot.policy_versions": Row(
        call("create_policy_version", policyName="fix-versions", policyDocument=_ANY),
        steps(call("create_policy", policyName="fix-versions", policyDocument=_ANY), *_VERSIONS),
    ),
    "awsiot.request_invalid": Row(
        call("describe_endpoint", endpointType="iot:None"),
        is_instead=True,
    ),
    "awsiot.status_invalid": Row(
        call("update_certificate", certificateId=id_of, newStatus="PENDING_TRANSFER"),
        registered("fix-status"),
        is_instead=True,
    ),
    "awsiot.pending_activation": Row(
        call("register_certificate_without_ca", certificatePem=pem_of, status="PENDING_ACTIVATION"),
        device("fix-waits"),
        is_instead=True,
    ),
    "awsiot.endpoint_retired": Row(call("describe_endpoint", endpointType="iot:Data"), is_instead=True),
    "awsiot.thing_exists": Row(
        call("create_thing", thingName="fix-there", attributePayload={"attributes": {"site": "there"}}),
        call("create_thing", thingName="fix-there"),
        is_instead=True,
    ),
    "awsiot.thing_in_use": Row(
        call("delete_thing", thingName="fix-used"),
        steps(
            registered("fix-used"),
            call("create_thing", thingName="fix-used"),
            call("attach_thing_principal", thingName="fix-used", principal=arn_of),
        ),
    ),
    "awsiot.thing_type_exists": Row(
        call("create_thing_type", thingTypeName="fix-kind", thingTypeProperties={"thingTypeDescription": "another"}),
        call("create_thing_type", thingTypeName="fix-kind"),
        is_instead=True,
    ),
    "awsiot.thing_type_state": Row(
        call("create_thing", thingName="fix-of-type", thingTypeName="fix-deprecated"),
        steps(
            call("create_thing_type", thingTypeName="fix-deprecated"),
            call("deprecate_thing_type", thingTypeName="fix-deprecated"),
        ),
    ),
    "awsiot.unknown_thing_group": Row(
        call("add_thing_to_thing_group", thingGroupName="fix-group", thingName="fix-member"),
        call("create_thing", thingName="fix-member"),
    ),
    "awsiot.thing_group_exists": Row(
        call("create_thing_group", thingGroupName="fix-line", thingGroupProperties={"thingGroupDescription": "other"}),
        call("create_thing_group", thingGroupName="fix-line"),
        is_instead=True,
    ),
    "awsiot.thing_group_version": Row(
        call("update_thing_group", thingGroupName="fix-grown", thingGroupProperties={}, expectedVersion=7),
        call("create_thing_group", thingGroupName="fix-grown"),
        is_instead=True,
    ),
    "awsiot.thing_group_depth": Row(
        call("create_thing_group", thingGroupName="fix-8", parentGroupName="fix-7"), steps(*_LINE), is_instead=True
    ),
    "awsiot.thing_group_in_use": Row(
        call("delete_thing_group", thingGroupName="fix-above"),
        steps(
            call("create_thing_group", thingGroupName="fix-above"),
            call("create_thing_group", thingGroupName="fix-below", parentGroupName="fix-above"),
        ),
    ),
    "awsiot.thing_group_limit": Row(
        call("add_thing_to_thing_group", thingName="fix-everywhere", thingGroupName="fix-in-10"),
        steps(call("create_thing", thingName="fix-everywhere"), *_TEN),
        is_instead=True,
    ),
    "awsiot.thing_group_dynamic": Row(
        call("add_thing_to_thing_group", thingName="fix-found", thingGroupName="fix-dynamic"),
        steps(_index, call("create_thing", thingName="fix-found"), _DYNAMIC),
        is_instead=True,
    ),
    "awsiot.thing_group_static": Row(
        call("delete_dynamic_thing_group", thingGroupName="fix-static"),
        call("create_thing_group", thingGroupName="fix-static"),
        is_instead=True,
    ),
    "awsiot.dynamic_group_limit": Row(
        call("create_dynamic_thing_group", thingGroupName="fix-one-more", queryString="*"),
        steps(_index, _a_hundred_dynamic_groups),
        is_instead=True,
    ),
    "awsiot.index_not_ready": Row(
        call("search_index", queryString="*"),
        call("update_indexing_configuration", thingIndexingConfiguration={"thingIndexingMode": "OFF"}),
        is_instead=True,
    ),
    "awsiot.query_invalid": Row(call("search_index", queryString="("), is_instead=True, apply=_when_built),
    "awsiot.unknown_index": Row(call("search_index", queryString="*", indexName="Other"), is_instead=True),
    "awsiot.tag_invalid": Row(
        call("create_policy", policyName="fix-tag", policyDocument=_ANY, tags=[{"Key": "aws:x", "Value": "1"}]),
        is_instead=True,
    ),
    "awsiot.tag_limit": Row(
        call("create_policy", policyName="fix-tags", policyDocument=_ANY, tags=_FIFTY_ONE), is_instead=True
    ),
    "awsiot.thing_version": Row(
        call("update_thing", thingName="fix-version", expectedVersion=7),
        call("create_thing", thingName="fix-version"),
        is_instead=True,
    ),
}
