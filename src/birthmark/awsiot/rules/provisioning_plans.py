"""What a template makes of one device: the plan, and why there is none."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from birthmark.errors import ConflictError, InvalidRequestError


class TemplateInvalidError(InvalidRequestError):
    """A provisioning template that says nothing, or that nobody can be sure of."""

    code = "awsiot.template_invalid"
    message = "The provisioning template is not valid: {detail}"
    fix = (
        "A template is a JSON object with Parameters and Resources of the types AWS::IoT::Thing, "
        "AWS::IoT::Certificate and AWS::IoT::Policy. This is one: `birthmark aws template example`"
    )
    detail: str


class RegistrationFailedError(InvalidRequestError):
    """What a template says of a device cannot be done."""

    code = "awsiot.registration_failed"
    message = "The device cannot be registered: {step}: {detail}"
    cause = "What failed is {step}: {detail}. Nothing was kept of what the template says."
    fix = "Mend the template, or what the device sends, and let it try again. Templates: `birthmark aws template ls`"
    detail: str
    step: str
    """The section or resource that failed."""
    thing: str = ""


class ResourceConflictsError(ConflictError):
    """What is on record is another, and the template says to fail then."""

    code = "awsiot.resource_conflicts"
    message = "{resource} exists already, and the template says FAIL for its {property}"
    fix = "What is on record: `{command}`. With REPLACE or DO_NOTHING in its OverrideSettings the template goes on."
    command: str
    property: str
    resource: str
    thing: str


class Override(StrEnum):
    """What is done where the resource is there already."""

    DO_NOTHING = "DO_NOTHING"
    REPLACE = "REPLACE"
    MERGE = "MERGE"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class ThingPlan:
    """The thing that a device is; `logical` is its name in the template."""

    logical: str
    name: str
    attributes: Mapping[str, str]
    type_name: str | None
    groups: tuple[str, ...]
    overrides: Mapping[str, Override]

    def override(self, name: str) -> Override:
        """Return what is done with a property of a thing that is there."""
        return self.overrides.get(name, Override.DO_NOTHING)


@dataclass(frozen=True, slots=True)
class CertificatePlan:
    """The certificate of a device: by its id, by its text, or by a request for one."""

    logical: str
    certificate_id: str | None
    pem: str | None
    ca_pem: str | None
    csr: str | None
    status: str
    is_exclusive: bool
    override: Override


@dataclass(frozen=True, slots=True)
class PolicyPlan:
    """A policy: one that is there, or a document, named by its digest."""

    logical: str
    name: str
    document: str | None


@dataclass(frozen=True, slots=True)
class ProvisioningPlan:
    """What one device gets."""

    thing: ThingPlan | None
    certificate: CertificatePlan | None
    policies: tuple[PolicyPlan, ...]
    device_configuration: Mapping[str, Any]
