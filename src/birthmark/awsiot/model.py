"""AWS IoT's things, certificates and policies as values, with their names and ARNs (service model 2015-05-28)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType

import msgspec

from birthmark.documents import DocumentSection
from birthmark.errors import InvalidRequestError
from birthmark.pki.certificates import Certificate

ThingName = NewType("ThingName", str)
PolicyName = NewType("PolicyName", str)
CertificateId = NewType("CertificateId", str)
"""ID of a certificate or CA certificate: the SHA-256 thumbprint of the DER, in lowercase hex."""

MAX_ATTRIBUTES_WITHOUT_TYPE = 3
"""Maximum number of attributes of a thing without a type (developer guide, "Thing types")."""
MAX_ATTRIBUTES = 50
MAX_DESCRIPTION = 2028
MAX_PEM = 16 * 1024
_THING_NAME = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
_SHADOW_NAME = re.compile(r"[a-zA-Z0-9:_-]{1,64}")
_POLICY_NAME = re.compile(r"[\w+=,.@-]{1,128}", re.ASCII)
_TEMPLATE_NAME = re.compile(r"[0-9A-Za-z_-]{1,36}")
_CREDENTIAL_NAME = re.compile(r"[\w=,@-]{1,128}", re.ASCII)
_CERTIFICATE_ID = re.compile(r"(?:0x)?([a-fA-F0-9]{64})")
_JOB_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ATTRIBUTE_NAME = re.compile(r"[a-zA-Z0-9_.,@/:#-]{1,128}")
_ATTRIBUTE_VALUE = re.compile(r"[a-zA-Z0-9_.,@/:#=\[\]-]{0,800}")
_ARN = re.compile(r"arn:aws[a-z-]*:iot:[a-z0-9-]*:([0-9]{12}):([a-z]+)/(.{1,300})", re.DOTALL)
_OF_GROUP = "thinggroup/"


class NameInvalidError(InvalidRequestError):
    """The name is not valid."""

    code = "awsiot.name_invalid"
    message = "Invalid {kind}: {name!r}"
    cause = "{kind} {name!r} is not allowed."
    fix = "Use {allowed}. List the names in use: `{command}`"
    allowed: str
    command: str
    kind: str
    name: str


class AttributeInvalidError(InvalidRequestError):
    """The attributes of a thing are not valid."""

    code = "awsiot.attribute_invalid"
    message = "Invalid attributes: {detail}"
    fix = (
        "A thing can have at most 50 attributes, or 3 without a thing type. A value can have up to 800 characters: "
        "letters, digits, and _ . , @ / : # = [ ] -, but no spaces. Show the format: `{command}`"
    )
    command: str = "?"
    detail: str


class ArnInvalidError(InvalidRequestError):
    """The ARN is not valid."""

    code = "awsiot.arn_invalid"
    message = "Invalid {kind} ARN"
    cause = "{arn} is not the ARN of a {kind} in account {account}."
    fix = "Use the ARN that the create operation returned. List certificate ARNs: `aws iot list-certificates`."
    account: str
    arn: str
    kind: str


class CertificateStatus(StrEnum):
    """Status of a certificate; only ACTIVE may connect."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"
    REVOKED = "REVOKED"
    PENDING_TRANSFER = "PENDING_TRANSFER"
    REGISTER_INACTIVE = "REGISTER_INACTIVE"
    PENDING_ACTIVATION = "PENDING_ACTIVATION"


class CertificateMode(StrEnum):
    """Certificate mode. SNI_ONLY: registered without proof of the CA's key, so several accounts may register it."""

    DEFAULT = "DEFAULT"
    SNI_ONLY = "SNI_ONLY"


class PrincipalType(StrEnum):
    """Whether a certificate belongs exclusively to one thing."""

    EXCLUSIVE = "EXCLUSIVE_THING"
    NON_EXCLUSIVE = "NON_EXCLUSIVE_THING"


class OperationNotServedError(InvalidRequestError):
    """The operation is not supported."""

    code = "awsiot.operation_not_served"
    message = "{operation} is not a supported operation: {method} {path}"
    fix = (
        "Use an operation that docs/reference/aws-iot.md lists, as in this example: `aws iot list-things`. Nothing "
        "was changed."
    )
    operation: str
    method: str
    path: str


class MemberNotServedError(InvalidRequestError):
    """The request member is not supported."""

    code = "awsiot.member_not_served"
    message = "This server does not implement {member} of {operation}"
    cause = "The request for {operation} contains {member}, which this server does not support. Nothing was changed."
    fix = "Omit {member}. Show the parameters of the operation: `{command}`"
    command: str = "?"
    member: str
    operation: str


@dataclass(frozen=True, slots=True)
class Account:
    """The emulated account and the host name of its endpoint."""

    account_id: str
    region: str
    data_host: str

    def arn(self, kind: str, name: str) -> str:
        """Return `arn:aws:iot:REGION:ACCOUNT:KIND/NAME`."""
        return f"arn:aws:iot:{self.region}:{self.account_id}:{kind}/{name}"

    def parse_arn(self, arn: str, *kinds: str) -> tuple[str, str]:
        """Return kind and name of an ARN in this account. Raise `ArnInvalidError`.

        Any region is accepted: clients sign for any, and scripts contain ARNs.
        """
        found = _ARN.fullmatch(arn)
        if found is None or found[1] != self.account_id or found[2] not in kinds:
            raise ArnInvalidError(arn=arn[:300], account=self.account_id, kind=" or ".join(kinds))
        return found[2], found[3]

    def parse_certificate_arn(self, arn: str) -> CertificateId:
        """Return the id in the ARN of a certificate in this account. Raise `ArnInvalidError`."""
        return parse_certificate_id(self.parse_arn(arn, "cert")[1])

    def parse_target(self, arn: str) -> str:
        """Return a policy target, a certificate or a thing group. Raise `ArnInvalidError`."""
        kind, name = self.parse_arn(arn, "cert", "thinggroup")
        return parse_certificate_id(name) if kind == "cert" else target_of_group(name)

    def target_arn(self, target: str) -> str:
        """Return the ARN of a policy target."""
        group = group_of(target)
        return self.arn("cert", target) if group is None else self.arn("thinggroup", group)


@dataclass(frozen=True, slots=True)
class Thing:
    """A device in the registry. `version` counts changes from 1."""

    name: ThingName
    thing_id: str
    type_name: str | None
    attributes: Mapping[str, str]
    billing_group: str | None
    version: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ThingType:
    """A type of things; `properties` as the client gave them."""

    name: str
    type_id: str
    properties: Mapping[str, Any]
    deprecated_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ThingGroup:
    """A group of things; `properties` as the client gave them. `version` counts changes from 1."""

    name: str
    group_id: str
    properties: Mapping[str, Any]
    version: int
    created_at: datetime
    parent: str | None = None
    query: str | None = None
    """Query of a dynamic group, as JSON; None for a static group."""


@dataclass(frozen=True, slots=True)
class DeviceCertificate:
    """A registered certificate. `customer_version` counts changes from 1; `pem` is the registered text."""

    id: CertificateId
    certificate: Certificate
    status: CertificateStatus
    mode: CertificateMode
    ca_id: CertificateId | None
    created_at: datetime
    modified_at: datetime
    customer_version: int
    generation_id: str
    claim: str | None = None
    """Provisioning template of a claim certificate, empty for any; None for other certificates."""
    until: datetime | None = None
    """Time of automatic removal, for certificates not provisioned by then or created for a trusted user."""
    replaces: str | None = None
    """The certificate that it renewed, until it has connected."""
    pem: str | None = None


@dataclass(frozen=True, slots=True)
class RegisteredCa:
    """A registered CA. `registration` is the JSON of its registrationConfig; `pem` is the registered text."""

    id: CertificateId
    certificate: Certificate
    is_active: bool
    mode: CertificateMode
    auto_registration: bool
    registration: str | None
    created_at: datetime
    modified_at: datetime
    customer_version: int
    generation_id: str
    pem: str | None = None


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """A policy; its documents are `PolicyVersion`s."""

    name: PolicyName
    default_version: int
    last_version: int
    generation_id: str
    created_at: datetime
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """One immutable version of a policy."""

    policy: PolicyName
    version: int
    document: str
    created_at: datetime


class TemplateType(StrEnum):
    """Type of a provisioning template."""

    FLEET_PROVISIONING = "FLEET_PROVISIONING"
    JITP = "JITP"


@dataclass(frozen=True, slots=True)
class ProvisioningTemplate:
    """A provisioning template; its bodies are `TemplateVersion`s. `hook` is the JSON of its preProvisioningHook."""

    name: str
    kind: TemplateType
    description: str
    is_enabled: bool
    role_arn: str
    hook: str | None
    default_version: int
    last_version: int
    generation_id: str
    created_at: datetime
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class TemplateVersion:
    """One immutable version of a provisioning template."""

    template: str
    version: int
    body: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class OwnedCertificate:
    """A certificate given to a device but not yet in use; `digest` is that of its ownership token."""

    certificate_id: CertificateId
    digest: str
    principal: str
    client_id: str
    until: datetime


class TaskStatus(StrEnum):
    """Status of a bulk registration task."""

    IN_PROGRESS = "InProgress"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


@dataclass(frozen=True, slots=True)
class RegistrationTask:
    """A bulk registration task. `done` of `total` lines of its file were tried; 0 of 0 before the file is read."""

    task_id: str
    body: str
    bucket: str
    key: str
    role_arn: str
    status: TaskStatus
    message: str
    done: int
    total: int
    succeeded: int
    failed: int
    link: str
    """Link ID of its reports."""
    actor: str
    created_at: datetime
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class TaskLine:
    """Result of one line of a bulk registration: the JSON response or the error."""

    task_id: str
    line: int
    is_done: bool
    body: str


@dataclass(frozen=True, slots=True)
class AccessKey:
    """Access key of an operator's client; it may do everything or what its policy allows."""

    id: str
    secret: str = field(repr=False)
    name: str
    created_at: datetime
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class Authorizer:
    """A custom authorizer: which function decides, and by which keys tokens are checked. `version` counts changes."""

    name: str
    function_arn: str
    token_key_name: str | None
    signing_keys: Mapping[str, Any]
    is_active: bool
    signing_disabled: bool
    caches_http: bool
    created_at: datetime
    modified_at: datetime
    version: int = 1


@dataclass(frozen=True, slots=True)
class RoleAlias:
    """Role alias: the name under which devices request credentials of a role, and their duration."""

    name: str
    alias_id: str
    role_arn: str
    duration_s: int
    created_at: datetime
    modified_at: datetime
    version: int = 1


class JobStatus(StrEnum):
    """Status of a job; one that is being deleted deletes its executions first."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN_PROGRESS"
    CANCELED = "CANCELED"
    COMPLETED = "COMPLETED"
    DELETING = "DELETION_IN_PROGRESS"


class ExecutionStatus(StrEnum):
    """Status of an execution; the first two are pending, all others are final."""

    QUEUED = "QUEUED"
    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    REJECTED = "REJECTED"
    REMOVED = "REMOVED"
    CANCELED = "CANCELED"


GOES_ON = frozenset({JobStatus.SCHEDULED, JobStatus.IN_PROGRESS})
FAILS = frozenset({ExecutionStatus.FAILED, ExecutionStatus.REJECTED, ExecutionStatus.TIMED_OUT})
PENDING = frozenset({ExecutionStatus.QUEUED, ExecutionStatus.IN_PROGRESS})


@dataclass(frozen=True, slots=True)
class Job:
    """A job. `settings` has rollout, abort, timeout, and retry as given by the client.

    `rolled` counts the executions created, the last at `rolled_at`; `revision` counts the writes of its row. The
    document was read from `source`; its `parameters` are filled in on delivery. A paused job creates no executions.
    """

    job_id: str
    document: str
    description: str | None
    settings: Mapping[str, Any]
    is_continuous: bool
    template: str | None
    status: JobStatus
    force_canceled: bool
    reason_code: str | None
    comment: str | None
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    rolled: int
    rolled_at: datetime
    revision: int
    source: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    paused_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class JobTarget:
    """Target of a job, `thing/NAME` or `thinggroup/NAME`; `after` is the last thing reached."""

    job_id: str
    target: str
    after: str
    is_done: bool


@dataclass(frozen=True, slots=True)
class JobExecution:
    """A job on one thing. `number` counts its attempts from 1, `version` the changes of one attempt.

    `ends_at` and `step_ends_at` are its timeouts, and `due_at` the earlier of them.
    """

    job_id: str
    thing: str
    number: int
    status: ExecutionStatus
    version: int
    details: Mapping[str, str]
    force_canceled: bool
    queued_at: datetime
    started_at: datetime | None
    updated_at: datetime
    ends_at: datetime | None
    step_ends_at: datetime | None
    due_at: datetime | None


@dataclass(frozen=True, slots=True)
class FailureReason:
    """Reported failure reason of a job: the number of devices and an example."""

    status: ExecutionStatus
    details: Mapping[str, str]
    count: int
    thing: str


@dataclass(frozen=True, slots=True)
class JobTemplate:
    """Template of a job; `settings` as in a job."""

    template_id: str
    description: str
    document: str
    settings: Mapping[str, Any]
    created_at: datetime
    source: str | None = None


class Shadow(msgspec.Struct, frozen=True):
    """Desired and reported state of a thing; the classic shadow has no name.

    A shadow that never existed has version 0; a deleted shadow keeps its version. `at` is the time of the last change,
    in microseconds.
    """

    thing: str
    name: str = ""
    desired: DocumentSection = DocumentSection()
    reported: DocumentSection = DocumentSection()
    version: int = 0
    at: int = 0
    is_deleted: bool = False

    @property
    def sections(self) -> Mapping[str, DocumentSection]:
        return {"desired": self.desired, "reported": self.reported}

    @property
    def label(self) -> str:
        """The thing name, followed by `~` and the shadow name for a named shadow."""
        return f"{self.thing}~{self.name}" if self.name else self.thing


def parse_thing_name(text: str) -> ThingName:
    """Return a valid thing name, case-sensitive. Raise `NameInvalidError`."""
    if _THING_NAME.fullmatch(text) is None:
        raise NameInvalidError(
            kind="Thing name",
            allowed="1 to 128 letters, digits and : _ -",
            name=text[:128],
            command="aws iot list-things",
        )
    return ThingName(text)


def parse_shadow_name(thing: ThingName, text: str) -> str:
    """Return a valid name of a thing's named shadow. Raise `NameInvalidError`."""
    if _SHADOW_NAME.fullmatch(text) is None:
        command = f"aws iot-data list-named-shadows-for-thing --thing-name {thing}"
        raise NameInvalidError(
            kind="Shadow name", allowed="1 to 64 letters, digits and : _ -", name=text[:128], command=command
        )
    return text


def parse_policy_name(text: str) -> PolicyName:
    """Return the name. Raise `NameInvalidError`."""
    if _POLICY_NAME.fullmatch(text) is None:
        raise NameInvalidError(
            kind="Policy name",
            allowed="1 to 128 letters, digits and + = , . @ _ -",
            name=text[:128],
            command="aws iot list-policies",
        )
    return PolicyName(text)


def parse_template_name(text: str) -> str:
    """Return the name of a provisioning template. Raise `NameInvalidError`."""
    if _TEMPLATE_NAME.fullmatch(text) is None:
        raise NameInvalidError(
            kind="Template name",
            allowed="1 to 36 letters, digits and _ -",
            name=text[:36],
            command="birthmark aws template ls",
        )
    return text


def parse_authorizer_name(text: str) -> str:
    """Return the name. Raise `NameInvalidError`."""
    if _CREDENTIAL_NAME.fullmatch(text) is None:
        raise NameInvalidError(
            kind="Authorizer name",
            allowed="1 to 128 letters, digits and = , @ _ -",
            name=text[:128],
            command="aws iot list-authorizers",
        )
    return text


def parse_alias_name(text: str) -> str:
    """Return the name of a role alias. Raise `NameInvalidError`."""
    if _CREDENTIAL_NAME.fullmatch(text) is None:
        raise NameInvalidError(
            kind="Role alias name",
            allowed="1 to 128 letters, digits and = , @ _ -",
            name=text[:128],
            command="aws iot list-role-aliases",
        )
    return text


def parse_job_id(text: str, kind: str = "Job id", command: str = "birthmark aws job ls") -> str:
    """Return the id of a job or of a job template. Raise `NameInvalidError`."""
    if _JOB_ID.fullmatch(text) is None:
        raise NameInvalidError(kind=kind, allowed="1 to 64 letters, digits and _ -", name=text[:64], command=command)
    return text


def target_of_group(name: str) -> str:
    """Return the policy target of a thing group."""
    return _OF_GROUP + name


def group_of(target: str) -> str | None:
    """Return the thing group of a policy target; None for a certificate."""
    return target.removeprefix(_OF_GROUP) if target.startswith(_OF_GROUP) else None


def is_certificate_id(text: str) -> bool:
    """Return whether the text is a certificate ID, not an access key ID."""
    return _CERTIFICATE_ID.fullmatch(text) is not None


def parse_single_pem(pem: str) -> str | None:
    """Return the stored text of one certificate; None if it contains more, such as a key."""
    is_one = pem.count("-----BEGIN ") == 1 and len(pem) <= MAX_PEM
    return pem if is_one and "-----BEGIN CERTIFICATE-----" in pem else None


def parse_certificate_id(text: str) -> CertificateId:
    """Return the id in lower case. Raise `NameInvalidError`."""
    if (found := _CERTIFICATE_ID.fullmatch(text)) is None:
        raise NameInvalidError(
            kind="Certificate id", allowed="64 hexadecimal digits", name=text[:128], command="aws iot list-certificates"
        )
    return CertificateId(found[1].lower())


def is_attribute_name(text: str) -> bool:
    """Return whether the text is a valid attribute name."""
    return _ATTRIBUTE_NAME.fullmatch(text) is not None


def parse_attributes(values: Mapping[str, str]) -> dict[str, str]:
    """Return a thing's attributes; empty values delete an attribute. Raise `AttributeInvalidError`."""
    for name, value in values.items():
        if not is_attribute_name(name):
            raise AttributeInvalidError(detail=f"the name {name[:128]!r}")
        if _ATTRIBUTE_VALUE.fullmatch(value) is None:
            raise AttributeInvalidError(detail=f"the value of {name!r}")
    kept = {name: value for name, value in values.items() if value}
    if len(kept) > MAX_ATTRIBUTES:
        raise AttributeInvalidError(detail=f"{len(kept)} attributes")
    return kept


def check_attribute_count(thing: Thing) -> None:
    """Raise `AttributeInvalidError` if a thing without a type has too many attributes."""
    if thing.type_name is None and len(thing.attributes) > MAX_ATTRIBUTES_WITHOUT_TYPE:
        limit = MAX_ATTRIBUTES_WITHOUT_TYPE
        count = len(thing.attributes)
        raise AttributeInvalidError(detail=f"a thing without a thing type can have {limit}, not {count}")


def parse_group_properties(description: str | None, attributes: Mapping[str, str] | None) -> dict[str, Any]:
    """Return a group's properties without None values. Raise `AttributeInvalidError`."""
    found: dict[str, Any] = {}
    if description is not None:
        if len(description) > MAX_DESCRIPTION or not description.isprintable():
            raise AttributeInvalidError(detail=f"a description has up to {MAX_DESCRIPTION} printable characters")
        found["thingGroupDescription"] = description
    if attributes is not None:
        found["attributePayload"] = {"attributes": parse_attributes(attributes)}
    return found


@dataclass(frozen=True, slots=True)
class TopicRule:
    """A topic rule: its selected messages and actions, as given to CreateTopicRule.

    `revision` counts the writes of its row.
    """

    name: str
    payload: Mapping[str, Any]
    is_disabled: bool
    created_at: datetime
    modified_at: datetime
    revision: int


class DestinationStatus(StrEnum):
    """Status of a destination: whether rules may send to it."""

    ENABLED = "ENABLED"
    IN_PROGRESS = "IN_PROGRESS"
    DISABLED = "DISABLED"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class RuleDestination:
    """An HTTP destination of rules; `token` is empty once it is confirmed."""

    id: str
    url: str
    status: DestinationStatus
    reason: str
    token: str = field(repr=False)
    created_at: datetime
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class DataStream:
    """A stream that rules write to, as a replacement for an Amazon Kinesis stream."""

    name: str
    created_at: datetime
