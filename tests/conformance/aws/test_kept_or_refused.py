"""What a request carries is kept or refused by its name: each member of each request that is served, by boto3.

The members come from the service models themselves. Each is in one of the tables below, and what its table says of it
is tried: kept and read back, heeded by the answer, or refused with its name. One that is in none of them fails here.
"""

import base64
import json
import queue
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any

import boto3
import botocore.session
import paho.mqtt.client as paho
import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from birthmark.awsiot.http.app import GROUPS
from birthmark.awsiot.http.client_connections import ClientOperations, ConnectivityOperations
from birthmark.awsiot.http.data_plane import DataOperations
from birthmark.awsiot.http.operation_routing_and_request_members import OPERATIONS
from support.aws import kept_credentials, kept_jobs, kept_provisioning, kept_rules
from support.aws.device import document, statement
from support.pki.pki_builders import a_ca, a_device
from support.server.servers import RunningServer

pytestmark = pytest.mark.system
SERVED = {
    one.title: one
    for one in OPERATIONS
    if any(
        hasattr(group, one.handled_by) for group in (*GROUPS, DataOperations, ConnectivityOperations, ClientOperations)
    )
}
PAGES = frozenset({"marker", "nextToken", "pageSize", "maxResults"})
POLICY = document(statement("iot:*"))
NUMBERS = count(1)


def now() -> datetime:
    return datetime.now(UTC)


def members_of(shape: Any, place: str = "") -> Iterator[str]:
    """Yield what may be left out, a structure's members by their path; what must be there names what is meant."""
    for name, member in shape.members.items():
        if member.type_name == "structure":
            yield from members_of(member, f"{place}{name}.")
        elif place or (name not in shape.required_members and name not in PAGES):
            yield f"{place}{name}"


def models() -> Iterator[tuple[str, str]]:
    session = botocore.session.get_session()
    for name, operation in SERVED.items():
        shape = session.get_service_model(operation.service).operation_model(operation.name).input_shape
        yield from ((name, member) for member in (members_of(shape) if shape else ()))


@dataclass
class Account:
    """An account by its clients."""

    server: RunningServer
    iot: Any
    data: Any
    jobs: Any

    def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """Ask for an operation by its name in the model."""
        client = {"iot-data": self.data, "iot-jobs-data": self.jobs}.get(SERVED[operation].service, self.iot)
        by_name = {name: verb for verb, name in client.meta.method_to_api_mapping.items()}
        answer: dict[str, Any] = getattr(client, by_name[SERVED[operation].name])(**arguments)
        answer.pop("ResponseMetadata", None)
        return answer

    @property
    def name(self) -> str:
        """A name that nobody had."""
        return f"kept-{next(NUMBERS)}"

    def thing(self, **more: Any) -> str:
        name = self.name
        self.iot.create_thing(thingName=name, **more)
        return name

    def group(self, **more: Any) -> str:
        name = self.name
        self.iot.create_thing_group(thingGroupName=name, **more)
        return name

    def type(self, **more: Any) -> str:
        name = self.name
        self.iot.create_thing_type(thingTypeName=name, **more)
        return name

    def policy(self) -> str:
        name = self.name
        self.iot.create_policy(policyName=name, policyDocument=POLICY)
        return name

    def client_id(self) -> str:
        """Return the id of a client that is away and has a session, with one subscription and a will."""
        client, heard = self.dialer(), queue.Queue[int]()
        client.on_connect = lambda client, *_: client.subscribe("kept/session", 1)
        client.on_subscribe = lambda *_: heard.put(0)
        client.will_set("kept/will", b"gone", 1)
        client.connect(self.server.endpoints["aws"]["data_endpoint"], 8883)
        client.loop_start()
        heard.get(timeout=20)
        client.disconnect()
        client.loop_stop()
        return bytes(client._client_id).decode()

    def dialer(self, **more: Any) -> paho.Client:
        """Return a client that may do everything and keeps its session, not connected yet."""
        name, directory = self.name, self.server.data.parent
        made = self.iot.create_keys_and_certificate(setAsActive=True)
        files = directory / f"{name}.pem", directory / f"{name}.key"
        files[0].write_text(made["certificatePem"])
        files[1].write_text(made["keyPair"]["PrivateKey"])
        self.iot.attach_policy(policyName=self.policy(), target=made["certificateArn"])
        client = paho.Client(name, clean_session=False, **more)
        context = ssl.create_default_context(cafile=self.server.endpoints["trust_bundle"])
        context.load_cert_chain(*files)
        client.tls_set_context(context)
        return client

    def certificate(self, **more: Any) -> dict[str, Any]:
        """Register a certificate; return its id and ARN."""
        pem = a_device(a_ca(now=now()), self.name, now=now()).certificate.pem()
        return dict(self.iot.register_certificate_without_ca(certificatePem=pem, **more))

    def attached(self, kind: str = "NON_EXCLUSIVE_THING") -> tuple[str, str]:
        """Return a thing and the ARN of a certificate that is attached to it."""
        thing, arn = self.thing(), self.certificate()["certificateArn"]
        self.iot.attach_thing_principal(thingName=thing, principal=arn, thingPrincipalType=kind)
        return thing, arn

    def authority(self, **more: Any) -> str:
        """Register a CA by its server name; return its id."""
        pem = a_ca(self.name, now=now()).certificate.pem()
        made = self.iot.register_ca_certificate(caCertificate=pem, certificateMode="SNI_ONLY", **more)
        return str(made["certificateId"])

    def refuses(self, operation: str, **arguments: Any) -> str:
        """Return the message of a refusal."""
        with pytest.raises(ClientError) as caught:
            self.call(operation, **arguments)
        told = caught.value.response["Error"]
        return f"{told['Code']} {told['Message']}"


@pytest.fixture(scope="module")
def birthmark_config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with kept_credentials.functions() as functions:
        yield functions.config(tmp_path_factory.mktemp("kept"), "echo") + kept_rules.SERVERS


@pytest.fixture(scope="module")
def account(server: RunningServer) -> Account:
    told = server.endpoints["aws"]
    given = {
        "endpoint_url": told["endpoint_url"],
        "region_name": told["region"],
        "aws_access_key_id": told["access_key_id"],
        "aws_secret_access_key": told["secret_access_key"],
        "verify": server.endpoints["trust_bundle"],
    }
    session = boto3.Session()
    return Account(server, *(session.client(name, **given) for name in ("iot", "iot-data", "iot-jobs-data")))


# ---- refused by name

TAGS = [{"Key": "site", "Value": "7"}]
# What is said instead of the member's own name.
WORDS = {"billingGroupName": "Billing group bills", **kept_jobs.WORDS, **kept_rules.WORDS}
MQTT5 = {
    "thingTypeProperties.mqtt5Configuration.propagatingAttributes": {
        "thingTypeProperties": {
            "mqtt5Configuration": {"propagatingAttributes": [{"userPropertyKey": "k", "thingAttribute": "a"}]}
        }
    }
}
THINGS, GROUPS_OF_THINGS = "thingIndexingConfiguration", "thingGroupIndexingConfiguration"
FIELDS = [{"name": "attributes.load", "type": "Number"}]
UNINDEXED: list[tuple[str, dict[str, Any]]] = [
    ("deviceDefenderIndexingMode", {"deviceDefenderIndexingMode": "VIOLATIONS"}),
    ("managedFields", {"managedFields": FIELDS}),
    ("filter.geoLocations", {"filter": {"geoLocations": [{"name": "a", "order": "LatLon"}]}}),
    (
        "filter.connectivity.includeSocketInformation",
        {"filter": {"connectivity": {"includeSocketInformation": ["SEARCH_INDEX"]}}},
    ),
]
GROUP_PROPERTIES = (
    "thingGroupProperties.thingGroupDescription",
    "thingGroupProperties.attributePayload.attributes",
    "thingGroupProperties.attributePayload.merge",
)
ASKED = [{"actionType": "CONNECT", "resources": ["arn:aws:iot:us-east-1:000000000000:client/a"]}]
# By operation: what it needs, and for each member what asks for it.
Needs = Callable[[Account], dict[str, Any]]
REFUSED: dict[str, tuple[Needs, dict[str, dict[str, Any]]]] = {
    "CreateThing": (lambda a: {"thingName": a.name}, {"billingGroupName": {"billingGroupName": "bills"}}),
    "CreateThingType": (lambda a: {"thingTypeName": a.name}, MQTT5),
    "UpdateThingType": (lambda a: {"thingTypeName": a.type()}, MQTT5),
    "UpdateIndexingConfiguration": (
        lambda _: {},
        {
            **{f"{THINGS}.{path}": {THINGS: {"thingIndexingMode": "REGISTRY", **asked}} for path, asked in UNINDEXED},
            f"{GROUPS_OF_THINGS}.managedFields": {
                GROUPS_OF_THINGS: {"thingGroupIndexingMode": "ON", "managedFields": FIELDS}
            },
        },
    ),
    "GetConnection": (
        lambda a: {"clientId": a.client_id()},
        {"includeSocketInformation": {"includeSocketInformation": True}},
    ),
    "TestAuthorization": (
        lambda a: {"principal": a.certificate()["certificateArn"], "authInfos": ASKED},
        {"cognitoIdentityPoolId": {"cognitoIdentityPoolId": "us-east-1:pool"}},
    ),
    "GetEffectivePolicies": (
        lambda a: {"principal": a.certificate()["certificateArn"]},
        {"cognitoIdentityPoolId": {"cognitoIdentityPoolId": "us-east-1:pool"}},
    ),
    "GetThingConnectivityData": (
        lambda a: {"thingName": a.thing()},
        {"includeSocketInformation": {"includeSocketInformation": True}},
    ),
    "ListCACertificates": (lambda _: {}, {"templateName": {"templateName": "t"}}),
    "ListPolicyPrincipals": (lambda a: {"policyName": a.policy()}, {"ascendingOrder": {"ascendingOrder": True}}),
    "ListPrincipalPolicies": (
        lambda a: {"principal": a.certificate()["certificateArn"]},
        {"ascendingOrder": {"ascendingOrder": True}},
    ),
}


def _refused(operation: str, member: str, account: Account) -> None:
    needs, asked = REFUSED[operation]
    words = account.refuses(operation, **{**needs(account), **asked[member]})
    named = ".".join(member.split(".")[:2])
    assert WORDS.get(member, named) in words
    account.call(operation, **needs(account))  # without it, it is served


# ---- kept, and read back

Case = Callable[[Account], None]
ATTRIBUTES = {"attributes": {"line": "4"}}


def _things_group(a: Account, **given: Any) -> str:
    thing, group = a.thing(), a.group()
    arn = {
        "thingArn": a.iot.describe_thing(thingName=thing)["thingArn"],
        "thingGroupArn": a.iot.describe_thing_group(thingGroupName=group)["thingGroupArn"],
    }
    names = {"thingName": thing, "thingGroupName": group}
    a.iot.add_thing_to_thing_group(**{name: names.get(name) or arn[name] for name in given["by"]})
    assert a.iot.list_things_in_thing_group(thingGroupName=group)["things"] == [thing]
    a.iot.remove_thing_from_thing_group(**{name: names.get(name) or arn[name] for name in given["by"]})
    assert a.iot.list_things_in_thing_group(thingGroupName=group)["things"] == []
    return group


def _by_names(a: Account) -> None:
    _things_group(a, by=("thingName", "thingGroupName"))


def _by_arns(a: Account) -> None:
    _things_group(a, by=("thingArn", "thingGroupArn"))


def _no_dynamic_group_is_there_to_be_overridden(a: Account) -> None:
    thing, group = a.thing(), a.group()
    a.iot.add_thing_to_thing_group(thingName=thing, thingGroupName=group, overrideDynamicGroups=True)
    assert a.iot.list_things_in_thing_group(thingGroupName=group)["things"] == [thing]


def _same(found: Any, wanted: Any) -> None:
    assert found == wanted


def _status(a: Account, made: dict[str, Any]) -> str:
    return str(a.iot.describe_certificate(certificateId=made["certificateId"])["certificateDescription"]["status"])


def _csr(a: Account) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, a.name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


def _version_conflict(a: Account, operation: str, **names: Any) -> None:
    assert "VersionConflictException" in a.refuses(operation, expectedVersion=7, **names)
    a.call(operation, expectedVersion=1, **names)


def _type_properties(a: Account, **given: Any) -> None:
    name = a.type(thingTypeProperties=given)
    found = a.iot.describe_thing_type(thingTypeName=name)["thingTypeProperties"]
    assert found.items() >= given.items()


def _group_properties(a: Account, **given: Any) -> None:
    name = a.group(thingGroupProperties=given)
    assert a.iot.describe_thing_group(thingGroupName=name)["thingGroupProperties"].items() >= given.items()
    other = a.group()
    a.iot.update_thing_group(thingGroupName=other, thingGroupProperties=given)
    assert a.iot.describe_thing_group(thingGroupName=other)["thingGroupProperties"].items() >= given.items()


def _merge_thing(a: Account) -> None:
    name = a.thing(attributePayload={**ATTRIBUTES, "merge": True})
    for merges, wanted in ((True, {"line": "4", "b": "1"}), (False, {"b": "1"})):
        a.iot.update_thing(thingName=name, attributePayload={"attributes": {"b": "1"}, "merge": merges})
        assert a.iot.describe_thing(thingName=name)["attributes"] == wanted


def _merge_group(a: Account) -> None:
    name = a.group(thingGroupProperties={"attributePayload": {**ATTRIBUTES, "merge": True}})
    for merges, wanted in ((True, {"line": "4", "b": "1"}), (False, {"b": "1"})):
        given = {"attributePayload": {"attributes": {"b": "1"}, "merge": merges}}
        a.iot.update_thing_group(thingGroupName=name, thingGroupProperties=given)
        found = a.iot.describe_thing_group(thingGroupName=name)["thingGroupProperties"]
        assert found["attributePayload"]["attributes"] == wanted


def _type_of_thing(a: Account) -> None:
    kind = a.type()
    name = a.thing(thingTypeName=kind)
    assert a.iot.describe_thing(thingName=name)["thingTypeName"] == kind
    other = a.thing()
    a.iot.update_thing(thingName=other, thingTypeName=kind)
    assert a.iot.describe_thing(thingName=other)["thingTypeName"] == kind
    assert [one["thingName"] for one in a.iot.list_things(thingTypeName=kind)["things"]] == [name, other]
    a.iot.update_thing(thingName=other, removeThingType=True)
    assert "thingTypeName" not in a.iot.describe_thing(thingName=other)


def _found_by_attribute(a: Account) -> None:
    value = a.name + "-value"
    name = a.thing(attributePayload={"attributes": {"place": value}})
    for asked, is_found in (
        ({"attributeValue": value}, True),
        ({"attributeValue": value[:-1]}, False),
        ({"attributeValue": value[:-1], "usePrefixAttributeValue": True}, True),
    ):
        found = a.iot.list_things(attributeName="place", **asked)["things"]
        assert (name in [one["thingName"] for one in found]) == is_found
    others = a.iot.list_things(attributeName="other", attributeValue=value)["things"]
    assert name not in [one["thingName"] for one in others]


def _principal_types(a: Account) -> None:
    thing, arn = a.attached("EXCLUSIVE_THING")
    for kind, number in (("EXCLUSIVE_THING", 1), ("NON_EXCLUSIVE_THING", 0)):
        things = a.iot.list_principal_things_v2(principal=arn, thingPrincipalType=kind)["principalThingObjects"]
        principals = a.iot.list_thing_principals_v2(thingName=thing, thingPrincipalType=kind)["thingPrincipalObjects"]
        assert (len(things), len(principals)) == (number, number)


def _order(a: Account, operation: str, entries: str, key: str, make: Callable[[], str], **more: Any) -> None:
    made = {make(), make()}
    up, down = (
        [one[key] for one in a.call(operation, ascendingOrder=flag, **more)[entries] if one[key] in made]
        for flag in (True, False)
    )
    assert up == down[::-1]
    assert set(up) == made


def _certificates_of_a_ca(a: Account) -> None:
    ca = a_ca(a.name, now=now())
    pem = ca.certificate.pem()
    made = a.iot.register_ca_certificate(caCertificate=pem, certificateMode="SNI_ONLY", setAsActive=True)

    def register() -> str:
        leaf = a_device(ca, a.name, now=now()).certificate.pem()
        return str(a.iot.register_certificate(certificatePem=leaf, caCertificatePem=pem)["certificateId"])

    ca_id = made["certificateId"]
    _order(a, "ListCertificatesByCA", "certificates", "certificateId", register, caCertificateId=ca_id)
    first = a.iot.list_certificates_by_ca(caCertificateId=ca_id)["certificates"][0]["certificateId"]
    assert a.iot.describe_certificate(certificateId=first)["certificateDescription"]["caCertificateId"] == ca_id


def _registered_by_ca(a: Account, wanted: str, **given: Any) -> None:
    ca = a_ca(a.name, now=now())
    pem = ca.certificate.pem()
    a.iot.register_ca_certificate(caCertificate=pem, certificateMode="SNI_ONLY", setAsActive=True)
    leaf = a_device(ca, a.name, now=now()).certificate.pem()
    assert _status(a, a.iot.register_certificate(certificatePem=leaf, caCertificatePem=pem, **given)) == wanted


def _authority(a: Account, key: str, wanted: str, **given: Any) -> None:
    found = a.iot.describe_ca_certificate(certificateId=a.authority(**given))["certificateDescription"]
    assert found[key] == wanted


def _updated_authority(a: Account) -> None:
    ca_id = a.authority()
    a.iot.update_ca_certificate(certificateId=ca_id, newStatus="ACTIVE")
    assert a.iot.describe_ca_certificate(certificateId=ca_id)["certificateDescription"]["status"] == "ACTIVE"


def _nothing_to_remove(a: Account) -> None:
    ca_id = a.authority()
    a.iot.update_ca_certificate(certificateId=ca_id, removeAutoRegistration=True)
    assert "registrationConfig" not in a.iot.describe_ca_certificate(certificateId=ca_id)


def _proven_authority(a: Account) -> None:
    code = a.iot.get_registration_code()["registrationCode"]
    ca = a_ca(a.name, now=now())
    wrong = a_device(ca, "another code", now=now()).certificate.pem()
    pem = ca.certificate.pem()
    words = a.refuses("RegisterCACertificate", caCertificate=pem, verificationCertificate=wrong)
    assert "RegistrationCodeValidationException" in words
    right = a_device(ca, code, now=now()).certificate.pem()
    made = a.iot.register_ca_certificate(caCertificate=pem, verificationCertificate=right)
    found = a.iot.describe_ca_certificate(certificateId=made["certificateId"])["certificateDescription"]
    assert found["certificateMode"] == "DEFAULT"


def _deprecation(a: Account) -> None:
    name = a.type()
    a.iot.deprecate_thing_type(thingTypeName=name)
    assert a.iot.describe_thing_type(thingTypeName=name)["thingTypeMetadata"]["deprecated"] is True
    a.iot.deprecate_thing_type(thingTypeName=name, undoDeprecate=True)
    assert a.iot.describe_thing_type(thingTypeName=name)["thingTypeMetadata"]["deprecated"] is False


def _forced(a: Account) -> None:
    made, policy = a.certificate(), a.policy()
    a.iot.attach_policy(policyName=policy, target=made["certificateArn"])
    assert "DeleteConflict" in a.refuses("DeleteCertificate", certificateId=made["certificateId"])
    a.iot.delete_certificate(certificateId=made["certificateId"], forceDelete=True)


def _endpoints(a: Account) -> None:
    for kind in ("iot:Data-ATS", "iot:CredentialProvider"):
        assert a.iot.describe_endpoint(endpointType=kind)["endpointAddress"]
    assert "iot:Data-ATS" in a.refuses("DescribeEndpoint", endpointType="iot:Jobs")
    assert "iot:Somewhere" in a.refuses("DescribeEndpoint", endpointType="iot:Somewhere")


def _effective(a: Account) -> None:
    thing, arn = a.attached()
    policy = a.policy()
    a.iot.attach_policy(policyName=policy, target=arn)
    found = a.iot.get_effective_policies(principal=arn, thingName=thing)["effectivePolicies"]
    assert [one["policyName"] for one in found] == [policy]
    assert "ResourceNotFound" in a.refuses("GetEffectivePolicies", principal=arn, thingName="nobody")


def _groups_by_prefix(a: Account) -> None:
    name = a.group()
    found = a.iot.list_thing_groups(namePrefixFilter=name)["thingGroups"]
    assert name in [one["groupName"] for one in found]
    assert a.iot.list_thing_groups(namePrefixFilter="no-group-begins-so")["thingGroups"] == []


def _line(a: Account) -> list[str]:
    """Make three groups, each below the one before."""
    names = [a.group()]
    for _ in range(2):
        names.append(a.group(parentGroupName=names[-1]))
    return names


def _groups_in_groups(a: Account) -> None:
    upper, middle, lower = _line(a)
    for asked, wanted in (
        ({"parentGroup": upper}, [middle, lower]),
        ({"parentGroup": upper, "recursive": False}, [middle]),
        ({"parentGroup": lower}, []),
    ):
        assert [one["groupName"] for one in a.iot.list_thing_groups(**asked)["thingGroups"]] == wanted
    told = a.iot.describe_thing_group(thingGroupName=lower)["thingGroupMetadata"]
    assert told["parentGroupName"] == middle
    assert [one["groupName"] for one in told["rootToParentThingGroups"]] == [upper, middle]
    assert "child groups" in a.refuses("DeleteThingGroup", thingGroupName=upper)


def _things_below(a: Account) -> None:
    thing, (upper, _, lower) = a.thing(), _line(a)
    a.iot.add_thing_to_thing_group(thingName=thing, thingGroupName=lower)
    assert a.iot.list_things_in_thing_group(thingGroupName=upper)["things"] == []
    assert a.iot.list_things_in_thing_group(thingGroupName=upper, recursive=True)["things"] == [thing]


def _policies_from_above(a: Account) -> None:
    policy, (upper, _, lower) = a.policy(), _line(a)
    arns = [a.iot.describe_thing_group(thingGroupName=one)["thingGroupArn"] for one in (upper, lower)]
    a.iot.attach_policy(policyName=policy, target=arns[0])
    for recursive, wanted in ((False, []), (True, [policy])):
        found = a.iot.list_attached_policies(target=arns[1], recursive=recursive)["policies"]
        assert [one["policyName"] for one in found] == wanted


def _groups_of_a_thing(a: Account) -> None:
    thing, groups = a.thing(), [a.group() for _ in range(3)]
    a.iot.update_thing_groups_for_thing(thingName=thing, thingGroupsToAdd=groups[:2])
    given = {"thingGroupsToAdd": groups[2:], "thingGroupsToRemove": groups[:1], "overrideDynamicGroups": True}
    a.iot.update_thing_groups_for_thing(thingName=thing, **given)
    found = a.iot.list_thing_groups_for_thing(thingName=thing)["thingGroups"]
    assert [one["groupName"] for one in found] == groups[1:]
    twice = a.refuses("UpdateThingGroupsForThing", thingName=thing, thingGroupsToAdd=groups, thingGroupsToRemove=groups)
    assert "added and removed" in twice


def _tags_of(a: Account, arn: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = a.iot.list_tags_for_resource(resourceArn=arn)["tags"]
    return found


def _tagged(a: Account, operation: str, **given: Any) -> None:
    made = a.call(operation, tags=TAGS, **given)
    arn = next(value for name, value in made.items() if name.endswith("Arn"))
    assert _tags_of(a, arn) == TAGS
    a.iot.tag_resource(resourceArn=arn, tags=[{"Key": "site", "Value": "8"}, {"Key": "line", "Value": ""}])
    assert _tags_of(a, arn) == [{"Key": "line", "Value": ""}, {"Key": "site", "Value": "8"}]
    a.iot.untag_resource(resourceArn=arn, tagKeys=["site", "never there"])
    assert _tags_of(a, arn) == [{"Key": "line", "Value": ""}]


def _authorization(a: Account) -> None:
    thing, arn = a.attached()
    deny, client = a.name, f"arn:aws:iot:us-east-1:000000000000:client/{thing}"
    asks_client = {**statement("iot:Connect"), "Effect": "Deny", "Resource": client.replace(thing, "${iot:ClientId}")}
    a.iot.create_policy(policyName=deny, policyDocument=document(asks_client))
    allow = a.policy()
    a.iot.attach_policy(policyName=allow, target=arn)
    asked = [{"actionType": "CONNECT", "resources": [client]}]

    def decided(**given: Any) -> tuple[str, list[str]]:
        (found,) = a.iot.test_authorization(authInfos=asked, **given)["authResults"]
        denied = found["denied"]["explicitDeny"]["policies"]
        return found["authDecision"], [one["policyName"] for one in (denied or found["allowed"]["policies"])]

    assert decided(principal=arn) == ("ALLOWED", [allow])
    assert decided(principal=arn, policyNamesToSkip=[allow]) == ("IMPLICIT_DENY", [])
    assert decided(principal=arn, clientId=thing, policyNamesToAdd=[deny]) == ("EXPLICIT_DENY", [deny])
    (found,) = a.iot.test_authorization(principal=arn, authInfos=asked, policyNamesToAdd=[deny])["authResults"]
    assert found["missingContextValues"] == ["iot:ClientId"]
    assert found["authDecision"] == "ALLOWED"


def _announced(a: Account) -> None:
    for is_on in (True, False):
        a.iot.update_event_configurations(eventConfigurations={"THING": {"Enabled": is_on}})
        assert a.iot.describe_event_configurations()["eventConfigurations"]["THING"] == {"Enabled": is_on}


def _indexed(a: Account, **things: Any) -> None:
    """Switch the index of things on, and wait until it is built."""
    things = {"thingIndexingMode": "REGISTRY", **things}
    a.iot.update_indexing_configuration(thingIndexingConfiguration=things)
    end = time.monotonic() + 20
    while a.iot.describe_index(indexName="AWS_Things")["indexStatus"] != "ACTIVE":
        assert time.monotonic() < end
        time.sleep(0.05)


def _configured(a: Account, **things: Any) -> None:
    _indexed(a, **things)
    found = a.iot.get_indexing_configuration()["thingIndexingConfiguration"]
    assert found.items() >= things.items()


def _groups_indexed(a: Account, **groups: Any) -> None:
    given = {"thingGroupIndexingMode": "ON", **groups}
    a.iot.update_indexing_configuration(thingGroupIndexingConfiguration=given)
    assert a.iot.get_indexing_configuration()["thingGroupIndexingConfiguration"] == given


def _searched(a: Account) -> None:
    _indexed(a)
    value = a.name
    names = [a.thing(attributePayload={"attributes": {"searched": value}}) for _ in range(3)]
    asked = {"queryString": f"attributes.searched:{value}", "indexName": "AWS_Things", "queryVersion": "2017-09-30"}
    page = a.iot.search_index(maxResults=2, **asked)
    rest = a.iot.search_index(nextToken=page["nextToken"], **asked)
    found = [one["thingName"] for one in (*page["things"], *rest["things"])]
    assert found == sorted(names)
    buckets = {"bucketsAggregationType": {"termsAggregation": {"maxBuckets": 5}}}
    more = {"GetBucketsAggregation": {"aggregationField": "attributes.searched", **buckets}}
    for operation in ("SearchIndex", "GetStatistics", "GetCardinality", "GetPercentiles", "GetBucketsAggregation"):
        for wrong in ({"indexName": "Other"}, {"queryVersion": "1999-01-01"}):
            a.refuses(operation, **(asked | more.get(operation, {}) | wrong))
    aggregated = asked | {"aggregationField": "attributes.searched"}
    assert a.iot.get_cardinality(**aggregated)["cardinality"] == 1
    assert a.iot.get_statistics(**aggregated)["statistics"]["count"] == 3
    (bucket,) = a.iot.get_buckets_aggregation(**aggregated, **buckets)["buckets"]
    assert bucket == {"keyValue": value, "count": 3}
    version = aggregated | {"aggregationField": "registry.version"}
    assert a.iot.get_percentiles(**version, percents=[50])["percentiles"] == [{"percent": 50, "value": 1}]


def _dynamic(a: Account, **given: Any) -> str:
    name = a.name
    told = a.iot.create_dynamic_thing_group(thingGroupName=name, queryString="thingName:a", **given)
    assert (told["indexName"], told["queryVersion"]) == ("AWS_Things", "2017-09-30")
    return name


def _dynamic_asks(a: Account) -> None:
    _indexed(a)
    name = _dynamic(a, indexName="AWS_Things", queryVersion="2017-09-30")
    given = {"indexName": "AWS_Things", "queryVersion": "2017-09-30", "queryString": "thingName:b"}
    a.iot.update_dynamic_thing_group(thingGroupName=name, thingGroupProperties={}, **given)
    assert a.iot.describe_thing_group(thingGroupName=name).items() >= given.items()
    for wrong in ({"indexName": "Other"}, {"queryVersion": "1"}):
        a.refuses("CreateDynamicThingGroup", thingGroupName=a.name, queryString="*", **wrong)
        a.refuses("UpdateDynamicThingGroup", thingGroupName=name, thingGroupProperties={}, **wrong)


def _dynamic_described(a: Account) -> None:
    _indexed(a)
    for merges, wanted in ((True, {"line": "4", "b": "1"}), (False, {"b": "1"})):
        name = _dynamic(
            a,
            thingGroupProperties={"thingGroupDescription": "old", "attributePayload": {**ATTRIBUTES, "merge": merges}},
        )
        payload = {"attributes": {"b": "1"}, "merge": merges}
        given = {"thingGroupDescription": "new", "attributePayload": payload}
        a.iot.update_dynamic_thing_group(thingGroupName=name, thingGroupProperties=given)
        found = a.iot.describe_thing_group(thingGroupName=name)["thingGroupProperties"]
        assert (found["thingGroupDescription"], found["attributePayload"]["attributes"]) == ("new", wanted)


def _dynamic_tagged(a: Account) -> None:
    _indexed(a)
    _tagged(a, "CreateDynamicThingGroup", thingGroupName=a.name, queryString="thingName:a")


def _dynamic_versions(a: Account) -> None:
    _indexed(a)
    name = _dynamic(a)
    _version_conflict(a, "UpdateDynamicThingGroup", thingGroupName=name, thingGroupProperties={})
    _version_conflict(a, "DeleteDynamicThingGroup", thingGroupName=_dynamic(a))


def _ended(a: Account) -> None:
    """Of clients that are connected one is ended with its session, and one without its will."""
    wills, watcher = queue.Queue[str](), a.dialer()
    watcher.on_connect = lambda client, *_: client.subscribe("wills/#", 1)
    watcher.on_subscribe = lambda *_: wills.put("")
    watcher.on_message = lambda _client, _data, message: wills.put(message.payload.decode())
    endpoint = a.server.endpoints["aws"]["data_endpoint"]
    watcher.connect(endpoint, 8883)
    watcher.loop_start()
    assert wills.get(timeout=20) == ""
    for asked, is_kept in (({"preventWillMessage": True}, True), ({"cleanSession": True}, False)):
        client, told = a.dialer(reconnect_on_failure=False), queue.Queue[str]()
        name = bytes(client._client_id).decode()
        client.will_set("wills/x", name, 1)
        client.on_connect = lambda client, *_: client.subscribe("some/topic", 1)
        client.on_subscribe = lambda *_, told=told: told.put("subscribed")
        client.on_disconnect = lambda *_, told=told: told.put("ended")
        client.connect(endpoint, 8883)
        client.loop_start()
        assert told.get(timeout=20) == "subscribed"
        known = a.data.get_connection(clientId=name)
        assert (known["connected"], known["cleanSession"]) == (True, False)
        assert a.data.list_subscriptions(clientId=name)["subscriptions"] == [{"topicFilter": "some/topic", "qos": 1}]
        a.data.delete_connection(clientId=name, **asked)
        assert told.get(timeout=20) == "ended"
        client.loop_stop()
        if is_kept:
            end = time.monotonic() + 10
            while "API_INITIATED_DISCONNECT" not in _why_not(a, name):  # written a moment later, for other workers
                assert time.monotonic() < end
                time.sleep(0.05)
            assert a.data.get_connection(clientId=name)["connected"] is False
        else:
            assert wills.get(timeout=20) == name  # and nothing of the one whose will was prevented
            end = time.monotonic() + 10
            while "ResourceNotFound" not in _why_not(a, name):
                assert time.monotonic() < end
                time.sleep(0.05)
    watcher.disconnect()
    watcher.loop_stop()
    away = a.client_id()
    assert a.data.list_subscriptions(clientId=away)["subscriptions"]
    a.data.delete_connection(clientId=away, cleanSession=True)
    assert "ResourceNotFound" in a.refuses("ListSubscriptions", clientId=away)
    assert "ResourceNotFound" in a.refuses("DeleteConnection", clientId=away)


def _why_not(a: Account, client_id: str) -> str:
    try:
        return str(a.data.get_connection(clientId=client_id))
    except ClientError as error:
        return str(error)


def _type_stays(a: Account, **given: Any) -> None:
    told = a.refuses("UpdateThingType", thingTypeName=a.type(), thingTypeProperties=given)
    assert "Can only update mqtt5Configuration" in told


def _one_type(a: Account) -> None:
    name = a.type()
    assert [one["thingTypeName"] for one in a.iot.list_thing_types(thingTypeName=name)["thingTypes"]] == [name]


def _default_version(a: Account) -> None:
    name = a.policy()
    for is_default in (False, True):
        made = a.iot.create_policy_version(policyName=name, policyDocument=POLICY, setAsDefault=is_default)
        assert (a.iot.get_policy(policyName=name)["defaultVersionId"] == made["policyVersionId"]) == is_default


def _shadow(a: Account) -> None:
    thing = a.thing()
    body = json.dumps({"state": {"desired": {"on": 1}}}).encode()
    a.data.update_thing_shadow(thingName=thing, shadowName="lamp", payload=body)
    assert a.data.list_named_shadows_for_thing(thingName=thing)["results"] == ["lamp"]
    found = json.loads(a.data.get_thing_shadow(thingName=thing, shadowName="lamp")["payload"].read())
    assert found["state"]["desired"] == {"on": 1}
    assert "ResourceNotFound" in a.refuses("GetThingShadow", thingName=thing)
    a.data.delete_thing_shadow(thingName=thing, shadowName="lamp")
    assert "ResourceNotFound" in a.refuses("GetThingShadow", thingName=thing, shadowName="lamp")


def _retained(a: Account) -> None:
    topic = a.name
    named = json.dumps([{"site": "7"}])
    a.data.publish(topic=topic, qos=1, retain=True, payload=b"hello", userProperties=named)
    found = a.data.get_retained_message(topic=topic)
    assert (found["payload"], found["qos"]) == (b"hello", 1)
    assert json.loads(found["userProperties"]) == [{"site": "7"}]
    a.data.publish(topic=topic + "/not", qos=1, retain=False, payload=b"hello")
    assert "ResourceNotFound" in a.refuses("GetRetainedMessage", topic=topic + "/not")


def _heard(a: Account) -> None:
    """Publish with all that MQTT 5 has, and read it as a subscriber gets it."""
    name, topic, directory = a.name, a.name, a.server.data.parent
    made = a.iot.create_keys_and_certificate(setAsActive=True)
    (directory / "heard.pem").write_text(made["certificatePem"])
    (directory / "heard.key").write_text(made["keyPair"]["PrivateKey"])
    a.iot.attach_policy(policyName=a.policy(), target=made["certificateArn"])
    told: queue.Queue[paho.MQTTMessage | None] = queue.Queue()
    client = paho.Client(name, protocol=paho.MQTTv5)
    context = ssl.create_default_context(cafile=a.server.endpoints["trust_bundle"])
    context.load_cert_chain(directory / "heard.pem", directory / "heard.key")
    client.tls_set_context(context)
    client.on_connect = lambda client, *_: client.subscribe(topic, 1)
    client.on_subscribe = lambda *_: told.put(None)
    client.on_message = lambda _client, _data, message: told.put(message)
    client.connect(a.server.endpoints["aws"]["data_endpoint"], 8883)
    client.loop_start()
    assert told.get(timeout=20) is None
    data = base64.b64encode(b"17").decode()
    more = {"contentType": "text/plain", "responseTopic": "answers", "correlationData": data, "messageExpiry": 600}
    a.data.publish(topic=topic, qos=1, payload=b"x", payloadFormatIndicator="UTF8_DATA", **more)
    message = told.get(timeout=20)
    client.disconnect()
    client.loop_stop()
    assert message is not None
    found: Any = message.properties
    assert (found.ContentType, found.ResponseTopic, found.CorrelationData) == ("text/plain", "answers", b"17")
    assert found.PayloadFormatIndicator == 1
    assert 0 < found.MessageExpiryInterval <= 600


KEPT: dict[str, dict[str, Case]] = {
    "AddThingToThingGroup": {
        "thingGroupName": _by_names,
        "thingName": _by_names,
        "thingGroupArn": _by_arns,
        "thingArn": _by_arns,
        "overrideDynamicGroups": _no_dynamic_group_is_there_to_be_overridden,
    },
    "RemoveThingFromThingGroup": {
        "thingGroupName": _by_names,
        "thingName": _by_names,
        "thingGroupArn": _by_arns,
        "thingArn": _by_arns,
    },
    "AttachThingPrincipal": {"thingPrincipalType": _principal_types},
    "ListThingPrincipalsV2": {"thingPrincipalType": _principal_types},
    "ListPrincipalThingsV2": {"thingPrincipalType": _principal_types},
    "CreateCertificateFromCsr": {
        "setAsActive": lambda a: _same(
            _status(a, a.iot.create_certificate_from_csr(certificateSigningRequest=_csr(a), setAsActive=True)),
            "ACTIVE",
        )
    },
    "CreateKeysAndCertificate": {
        "setAsActive": lambda a: _same(_status(a, a.iot.create_keys_and_certificate(setAsActive=True)), "ACTIVE")
    },
    "CreatePolicyVersion": {"setAsDefault": _default_version},
    "CreateThing": {
        "thingTypeName": _type_of_thing,
        "attributePayload.attributes": lambda a: _same(
            a.iot.describe_thing(thingName=a.thing(attributePayload=ATTRIBUTES))["attributes"], {"line": "4"}
        ),
        "attributePayload.merge": _merge_thing,
    },
    "UpdateThing": {
        "thingTypeName": _type_of_thing,
        "removeThingType": _type_of_thing,
        "attributePayload.attributes": _merge_thing,
        "attributePayload.merge": _merge_thing,
        "expectedVersion": lambda a: _version_conflict(a, "UpdateThing", thingName=a.thing()),
    },
    "DeleteThing": {"expectedVersion": lambda a: _version_conflict(a, "DeleteThing", thingName=a.thing())},
    "CreateThingGroup": {
        "tags": lambda a: _tagged(a, "CreateThingGroup", thingGroupName=a.name),
        "parentGroupName": _groups_in_groups,
        "thingGroupProperties.thingGroupDescription": lambda a: _group_properties(a, thingGroupDescription="line 4"),
        "thingGroupProperties.attributePayload.attributes": lambda a: _group_properties(a, attributePayload=ATTRIBUTES),
        "thingGroupProperties.attributePayload.merge": _merge_group,
    },
    "UpdateThingGroup": {
        "thingGroupProperties.thingGroupDescription": lambda a: _group_properties(a, thingGroupDescription="line 4"),
        "thingGroupProperties.attributePayload.attributes": _merge_group,
        "thingGroupProperties.attributePayload.merge": _merge_group,
        "expectedVersion": lambda a: _version_conflict(
            a, "UpdateThingGroup", thingGroupName=a.group(), thingGroupProperties={}
        ),
    },
    "DeleteThingGroup": {
        "expectedVersion": lambda a: _version_conflict(a, "DeleteThingGroup", thingGroupName=a.group())
    },
    "CreateThingType": {
        "tags": lambda a: _tagged(a, "CreateThingType", thingTypeName=a.name),
        "thingTypeProperties.thingTypeDescription": lambda a: _type_properties(a, thingTypeDescription="pumps"),
        "thingTypeProperties.searchableAttributes": lambda a: _type_properties(a, searchableAttributes=["line"]),
    },
    "DeprecateThingType": {"undoDeprecate": _deprecation},
    "DeleteCertificate": {"forceDelete": _forced},
    "DescribeEndpoint": {"endpointType": _endpoints},
    "GetEffectivePolicies": {"principal": _effective, "thingName": _effective},
    "ListAttachedPolicies": {"recursive": _policies_from_above},
    "ListThingGroups": {
        "parentGroup": _groups_in_groups,
        "recursive": _groups_in_groups,
        "namePrefixFilter": _groups_by_prefix,
    },
    "ListThingsInThingGroup": {"recursive": _things_below},
    "UpdateThingGroupsForThing": {
        "thingName": _groups_of_a_thing,
        "thingGroupsToAdd": _groups_of_a_thing,
        "thingGroupsToRemove": _groups_of_a_thing,
        "overrideDynamicGroups": _groups_of_a_thing,
    },
    "TestAuthorization": {
        "principal": _authorization,
        "clientId": _authorization,
        "policyNamesToAdd": _authorization,
        "policyNamesToSkip": _authorization,
    },
    **dict.fromkeys(
        ("GetStatistics", "GetCardinality"), dict.fromkeys(("indexName", "queryVersion", "aggregationField"), _searched)
    ),
    "GetBucketsAggregation": dict.fromkeys(
        ("indexName", "queryVersion", "bucketsAggregationType.termsAggregation.maxBuckets"), _searched
    ),
    "GetPercentiles": dict.fromkeys(("indexName", "queryVersion", "aggregationField", "percents"), _searched),
    "DeleteConnection": {"cleanSession": _ended, "preventWillMessage": _ended},
    "SearchIndex": {"indexName": _searched, "queryVersion": _searched},
    "CreateDynamicThingGroup": {
        **dict.fromkeys(("indexName", "queryVersion"), _dynamic_asks),
        **dict.fromkeys(GROUP_PROPERTIES, _dynamic_described),
        "tags": _dynamic_tagged,
    },
    "UpdateDynamicThingGroup": {
        **dict.fromkeys(("indexName", "queryVersion", "queryString"), _dynamic_asks),
        **dict.fromkeys(GROUP_PROPERTIES, _dynamic_described),
        "expectedVersion": _dynamic_versions,
    },
    "DeleteDynamicThingGroup": {"expectedVersion": _dynamic_versions},
    "UpdateIndexingConfiguration": {
        f"{THINGS}.thingIndexingMode": lambda a: _configured(a, thingIndexingMode="REGISTRY_AND_SHADOW"),
        f"{THINGS}.thingConnectivityIndexingMode": lambda a: _configured(a, thingConnectivityIndexingMode="STATUS"),
        f"{THINGS}.namedShadowIndexingMode": lambda a: _configured(a, namedShadowIndexingMode="ON"),
        f"{THINGS}.customFields": lambda a: _configured(a, customFields=FIELDS),
        f"{THINGS}.filter.namedShadowNames": lambda a: _configured(a, filter={"namedShadowNames": ["lamp"]}),
        f"{GROUPS_OF_THINGS}.thingGroupIndexingMode": _groups_indexed,
        f"{GROUPS_OF_THINGS}.customFields": lambda a: _groups_indexed(a, customFields=FIELDS),
    },
    "UpdateEventConfigurations": {"eventConfigurations": _announced},
    "UpdateThingType": {
        "thingTypeProperties.thingTypeDescription": lambda a: _type_stays(a, thingTypeDescription="new"),
        "thingTypeProperties.searchableAttributes": lambda a: _type_stays(a, searchableAttributes=["new"]),
    },
    "CreatePolicy": {"tags": lambda a: _tagged(a, "CreatePolicy", policyName=a.name, policyDocument=POLICY)},
    "ListCACertificates": {
        "ascendingOrder": lambda a: _order(a, "ListCACertificates", "certificates", "certificateId", a.authority)
    },
    "ListCertificates": {
        "ascendingOrder": lambda a: _order(
            a, "ListCertificates", "certificates", "certificateId", lambda: a.certificate()["certificateId"]
        )
    },
    "ListCertificatesByCA": {"ascendingOrder": _certificates_of_a_ca},
    "ListPolicies": {"ascendingOrder": lambda a: _order(a, "ListPolicies", "policies", "policyName", a.policy)},
    "ListThingTypes": {"thingTypeName": _one_type},
    "ListThings": {
        "attributeName": _found_by_attribute,
        "attributeValue": _found_by_attribute,
        "usePrefixAttributeValue": _found_by_attribute,
        "thingTypeName": _type_of_thing,
    },
    "RegisterCACertificate": {
        "tags": lambda a: _tagged(
            a,
            "RegisterCACertificate",
            caCertificate=a_ca(a.name, now=now()).certificate.pem(),
            certificateMode="SNI_ONLY",
        ),
        "verificationCertificate": _proven_authority,
        "setAsActive": lambda a: _authority(a, "status", "ACTIVE", setAsActive=True),
        "certificateMode": lambda a: _authority(a, "certificateMode", "SNI_ONLY"),
    },
    "UpdateCACertificate": {"newStatus": _updated_authority, "removeAutoRegistration": _nothing_to_remove},
    "RegisterCertificate": {
        "caCertificatePem": _certificates_of_a_ca,
        "setAsActive": lambda a: _registered_by_ca(a, "ACTIVE", setAsActive=True),
        "status": lambda a: _registered_by_ca(a, "ACTIVE", status="ACTIVE"),
    },
    "RegisterCertificateWithoutCA": {
        "status": lambda a: _same(_status(a, a.certificate(status="ACTIVE")), "ACTIVE"),
    },
    "DeleteThingShadow": {"shadowName": _shadow},
    "GetThingShadow": {"shadowName": _shadow},
    "UpdateThingShadow": {"shadowName": _shadow},
    "Publish": {
        "qos": _retained,
        "retain": _retained,
        "payload": _retained,
        "userProperties": _retained,
        "payloadFormatIndicator": _heard,
        "contentType": _heard,
        "responseTopic": _heard,
        "correlationData": _heard,
        "messageExpiry": _heard,
    },
}


KEPT |= kept_credentials.KEPT | kept_provisioning.KEPT | kept_jobs.KEPT | kept_rules.KEPT
REFUSED |= kept_jobs.REFUSED | kept_rules.REFUSED
for _operation, _more in kept_provisioning.OF_CAS.items():
    KEPT[_operation] = {**KEPT.get(_operation, {}), **_more}


@pytest.mark.parametrize(("operation", "member"), list(models()))
def test_each_member_is_kept_or_heeded_or_refused_by_its_name(account: Account, operation: str, member: str) -> None:
    is_refused = member in REFUSED.get(operation, (None, {}))[1]
    case = KEPT.get(operation, {}).get(member)
    assert is_refused != (case is not None), f"{member} of {operation} is kept nowhere and refused nowhere"
    if is_refused:
        _refused(operation, member, account)
    elif case is not None:
        case(account)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"policyDocument": POLICY, "shelfLife": 3}, "shelfLife"),
        ({"policyDocument": POLICY, "shelfLife": None}, None),
    ],
)
def test_a_member_that_no_model_has_is_refused_by_its_name(
    account: Account, body: dict[str, Any], named: str | None
) -> None:
    def write(params: dict[str, Any], **_: Any) -> None:
        params["body"] = json.dumps(body).encode()

    event, given = "before-call.iot.CreatePolicy", {"policyName": account.name, "policyDocument": POLICY}
    account.iot.meta.events.register(event, write)
    try:
        if named is None:
            account.call("CreatePolicy", **given)
        else:
            assert f"does not implement {named} of CreatePolicy" in account.refuses("CreatePolicy", **given)
    finally:
        account.iot.meta.events.unregister(event, write)


def test_a_thing_type_made_twice_alike_is_one(account: Account) -> None:
    given = {"thingTypeProperties": {"thingTypeDescription": "pumps", "searchableAttributes": ["line", "site"]}}
    name = account.type(**given)
    first = account.iot.describe_thing_type(thingTypeName=name)["thingTypeId"]
    assert account.call("CreateThingType", thingTypeName=name, **given)["thingTypeId"] == first


def test_the_tables_name_nothing_that_is_not_served() -> None:
    known = set(models())
    written = {(name, member) for name, (_, members) in REFUSED.items() for member in members}
    written |= {(name, member) for name, members in KEPT.items() for member in members}
    assert written == known
