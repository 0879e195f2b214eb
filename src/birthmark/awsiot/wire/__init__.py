"""AWS IoT JSON: request bodies to values, values to responses (service model `iot` 2015-05-28).

Times are numbers of seconds since 1970. Unknown request members are ignored.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from birthmark.awsiot.model import (
    Account,
    DeviceCertificate,
    NamedPolicy,
    PolicyVersion,
    RegisteredCa,
    Thing,
    ThingGroup,
    ThingType,
)
from birthmark.errors import InvalidRequestError
from birthmark.untrusted_json_and_text import read_json

T = TypeVar("T")


class BodyInvalidError(InvalidRequestError):
    """The request is not valid for the operation."""

    code = "awsiot.request_invalid"
    message = "The request is not valid: {detail}"
    fix = "Compare the request with the operation's parameters: `{command}`"
    command: str = "birthmark aws --help"
    detail: str


class AttributePayload(msgspec.Struct):
    attributes: dict[str, str] = {}
    merge: bool = False


class ThingGroupProperties(
    msgspec.Struct, rename={"description": "thingGroupDescription", "payload": "attributePayload"}
):
    description: str | None = None
    payload: AttributePayload | None = None

    @property
    def attributes(self) -> dict[str, str] | None:
        return None if self.payload is None else self.payload.attributes

    @property
    def merges(self) -> bool:
        return self.payload is not None and self.payload.merge


class PropagatingAttribute(msgspec.Struct, rename="camel", omit_defaults=True):
    user_property_key: str | None = None
    thing_attribute: str | None = None
    connection_attribute: str | None = None


class Mqtt5Configuration(msgspec.Struct, rename="camel", omit_defaults=True):
    propagating_attributes: list[PropagatingAttribute] | None = None


class ThingTypeProperties(msgspec.Struct, rename="camel", omit_defaults=True):
    thing_type_description: str | None = None
    searchable_attributes: list[str] | None = None
    mqtt5_configuration: Mqtt5Configuration | None = None


class AuthInfo(msgspec.Struct, rename={"action": "actionType"}):
    resources: list[str]
    action: str = ""


class FieldName(msgspec.Struct, omit_defaults=True):
    name: str = ""
    type: str | None = None


class IndexFilter(msgspec.Struct, rename="camel", omit_defaults=True):
    named_shadow_names: list[str] | None = None


class TermsAggregation(msgspec.Struct, rename="camel"):
    max_buckets: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 10


class BucketsAggregation(msgspec.Struct, rename="camel"):
    terms_aggregation: TermsAggregation = msgspec.field(default_factory=TermsAggregation)


class ThingIndexing(msgspec.Struct, rename="camel", omit_defaults=True):
    thing_indexing_mode: Literal["OFF", "REGISTRY", "REGISTRY_AND_SHADOW"]
    thing_connectivity_indexing_mode: Literal["OFF", "STATUS"] | None = None
    device_defender_indexing_mode: str | None = None
    named_shadow_indexing_mode: Literal["OFF", "ON"] | None = None
    custom_fields: list[FieldName] | None = None
    filter: IndexFilter | None = None


class ThingGroupIndexing(msgspec.Struct, rename="camel", omit_defaults=True):
    thing_group_indexing_mode: Literal["OFF", "ON"]
    custom_fields: list[FieldName] | None = None


class EventConfiguration(msgspec.Struct, rename={"enabled": "Enabled"}):
    enabled: bool = False


class Tag(msgspec.Struct, rename={"key": "Key", "value": "Value"}):
    key: str
    value: str = ""


class RegistrationConfig(msgspec.Struct, rename="camel", omit_defaults=True):
    template_body: str | None = None
    role_arn: str | None = None
    template_name: str | None = None


def parse_body(body: bytes, kind: type[T]) -> T:
    """Return the body as `kind`; an empty body is an empty object. Raise `BodyInvalidError`."""
    return read_json(body or b"{}", kind, BodyInvalidError)


def given_json(value: msgspec.Struct) -> dict[str, Any]:
    """Return a structure as the client sent it."""
    found: dict[str, Any] = msgspec.to_builtins(value)
    return found


def config_text(config: RegistrationConfig | None) -> str | None:
    """Return a registration configuration as stored JSON."""
    return None if config is None else msgspec.json.encode(config).decode()


def seconds(moment: datetime) -> float:
    """Return a time in wire format: seconds since 1970, to the millisecond."""
    return round(moment.timestamp(), 3)


def thing_name_json(account: Account, thing: Thing) -> dict[str, Any]:
    """Return the CreateThing response."""
    return {"thingName": thing.name, "thingArn": account.arn("thing", thing.name), "thingId": thing.thing_id}


def thing_attribute_json(account: Account, thing: Thing) -> dict[str, Any]:
    """Return an entry of ListThings."""
    return {
        "thingName": thing.name,
        "thingArn": account.arn("thing", thing.name),
        "attributes": dict(thing.attributes),
        "version": thing.version,
    } | _present({"thingTypeName": thing.type_name})


def thing_json(account: Account, thing: Thing) -> dict[str, Any]:
    """Return the DescribeThing response."""
    described = {"defaultClientId": thing.name, "thingId": thing.thing_id}
    return thing_attribute_json(account, thing) | described | _present({"billingGroupName": thing.billing_group})


def thing_type_name_json(account: Account, thing_type: ThingType) -> dict[str, Any]:
    """Return the CreateThingType response."""
    arn = account.arn("thingtype", thing_type.name)
    return {"thingTypeName": thing_type.name, "thingTypeArn": arn, "thingTypeId": thing_type.type_id}


def thing_type_json(account: Account, thing_type: ThingType) -> dict[str, Any]:
    """Return the DescribeThingType response."""
    deprecated_at = None if thing_type.deprecated_at is None else seconds(thing_type.deprecated_at)
    metadata = {"deprecated": deprecated_at is not None, "creationDate": seconds(thing_type.created_at)}
    return thing_type_name_json(account, thing_type) | {
        "thingTypeProperties": dict(thing_type.properties),
        "thingTypeMetadata": metadata | _present({"deprecationDate": deprecated_at}),
    }


def thing_group_name_json(account: Account, group: ThingGroup) -> dict[str, Any]:
    """Return the name, ARN and ID of a thing group."""
    return {"thingGroupName": group.name, "thingGroupArn": account.arn("thinggroup", group.name)}


def group_name_json(account: Account, name: str) -> dict[str, str]:
    """Return an entry of a list of groups."""
    return {"groupName": name, "groupArn": account.arn("thinggroup", name)}


def thing_group_json(account: Account, group: ThingGroup, line: Sequence[str]) -> dict[str, Any]:
    """Return the DescribeThingGroup response; `line` lists the group's ancestors."""
    metadata = {"creationDate": seconds(group.created_at)} | _present({"parentGroupName": group.parent})
    if line:
        metadata["rootToParentThingGroups"] = [group_name_json(account, name) for name in line]
    return thing_group_name_json(account, group) | {
        "thingGroupId": group.group_id,
        "thingGroupProperties": dict(group.properties),
        "version": group.version,
        "thingGroupMetadata": metadata,
        **dynamic_json(group),
        **({} if group.query is None else {"status": "ACTIVE"}),
    }


def dynamic_json(group: ThingGroup) -> dict[str, Any]:
    """Return the query members of a dynamic group; empty for a static group."""
    found: dict[str, Any] = {} if group.query is None else json.loads(group.query)
    return found


def certificate_name_json(account: Account, certificate: DeviceCertificate | RegisteredCa) -> dict[str, Any]:
    """Return the response to the registration of a certificate or a CA certificate."""
    kind = "cacert" if isinstance(certificate, RegisteredCa) else "cert"
    return {"certificateArn": account.arn(kind, certificate.id), "certificateId": certificate.id}


def created_certificate_json(account: Account, certificate: DeviceCertificate) -> dict[str, Any]:
    """Return the response to a certificate creation."""
    return certificate_name_json(account, certificate) | {"certificatePem": certificate.certificate.pem()}


def key_pair_json(key: rsa.RSAPrivateKey) -> dict[str, str]:
    """Return a key pair in the format of CreateKeysAndCertificate: PKCS#1, capitalized member names."""
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return {"PublicKey": public.decode(), "PrivateKey": private.decode()}


def certificate_entry_json(account: Account, certificate: DeviceCertificate) -> dict[str, Any]:
    """Return an entry of ListCertificates."""
    return certificate_name_json(account, certificate) | {
        "status": certificate.status.value,
        "certificateMode": certificate.mode.value,
        "creationDate": seconds(certificate.created_at),
    }


def certificate_json(account: Account, certificate: DeviceCertificate) -> dict[str, Any]:
    """Return a CertificateDescription."""
    own = {"transferData": {}} | _present({"caCertificateId": certificate.ca_id})
    return certificate_entry_json(account, certificate) | _description(account, certificate) | own


def ca_entry_json(account: Account, ca: RegisteredCa) -> dict[str, Any]:
    """Return an entry of ListCACertificates."""
    return certificate_name_json(account, ca) | {
        "status": "ACTIVE" if ca.is_active else "INACTIVE",
        "creationDate": seconds(ca.created_at),
    }


def ca_json(account: Account, ca: RegisteredCa) -> dict[str, Any]:
    """Return the DescribeCACertificate response."""
    own = {"autoRegistrationStatus": "ENABLE" if ca.auto_registration else "DISABLE"}
    config = {} if ca.registration is None else {"registrationConfig": json.loads(ca.registration)}
    return {"certificateDescription": ca_entry_json(account, ca) | _description(account, ca) | own} | config


def policy_entry_json(account: Account, name: str) -> dict[str, Any]:
    """Return an entry of ListPolicies."""
    return {"policyName": name, "policyArn": account.arn("policy", name)}


def policy_json(account: Account, policy: NamedPolicy, version: PolicyVersion) -> dict[str, Any]:
    """Return the GetPolicy response."""
    default = {"defaultVersionId": str(policy.default_version), "creationDate": seconds(policy.created_at)}
    return _document_json(account, policy, version) | default


def policy_version_json(account: Account, policy: NamedPolicy, version: PolicyVersion) -> dict[str, Any]:
    """Return the GetPolicyVersion response."""
    return _document_json(account, policy, version) | {
        "policyVersionId": str(version.version),
        "isDefaultVersion": version.version == policy.default_version,
        "creationDate": seconds(version.created_at),
    }


def policy_versions_json(policy: NamedPolicy, versions: Sequence[PolicyVersion]) -> dict[str, Any]:
    """Return the ListPolicyVersions response."""
    return {
        "policyVersions": [
            {
                "versionId": str(version.version),
                "isDefaultVersion": version.version == policy.default_version,
                "createDate": seconds(version.created_at),
            }
            for version in versions
        ]
    }


def _document_json(account: Account, policy: NamedPolicy, version: PolicyVersion) -> dict[str, Any]:
    return policy_entry_json(account, policy.name) | {
        "policyDocument": version.document,
        "lastModifiedDate": seconds(policy.modified_at),
        "generationId": policy.generation_id,
    }


def _description(account: Account, known: DeviceCertificate | RegisteredCa) -> dict[str, Any]:
    """Return the members that certificate and CA descriptions share."""
    certificate = known.certificate
    return {
        "certificatePem": known.pem or certificate.pem(),
        "ownedBy": account.account_id,
        "lastModifiedDate": seconds(known.modified_at),
        "customerVersion": known.customer_version,
        "generationId": known.generation_id,
        "validity": {"notBefore": seconds(certificate.not_before), "notAfter": seconds(certificate.not_after)},
        "certificateMode": known.mode.value,
    }


def _present(optional: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in optional.items() if value is not None}
