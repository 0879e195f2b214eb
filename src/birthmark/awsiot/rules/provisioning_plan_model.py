"""Provisioning plan as values: the thing, certificate, and policies of one device, and the errors that reject it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from birthmark.errors import ConflictError, InvalidRequestError


class TemplateInvalidError(InvalidRequestError):
    """The provisioning template is not valid."""

    code = "awsiot.template_invalid"
    message = "The provisioning template is not valid: {detail}"
    fix = (
        "Use a JSON object with Parameters and Resources of the types AWS::IoT::Thing, AWS::IoT::Certificate and "
        "AWS::IoT::Policy. Print an example: `birthmark aws template example`"
    )
    detail: str


class RegistrationFailedError(InvalidRequestError):
    """A device cannot be provisioned from the template."""

    code = "awsiot.registration_failed"
    message = "The device cannot be registered: {step}: {detail}"
    cause = "The step {step} failed: {detail}. All changes from the template were rolled back."
    fix = "Fix the template or the device's parameters, then retry. List templates: `birthmark aws template ls`"
    detail: str
    step: str
    """The section or resource that failed."""
    thing: str = ""


class ResourceConflictsError(ConflictError):
    """The resource exists already, and the template's override setting is FAIL."""

    code = "awsiot.resource_conflicts"
    message = "{resource} already exists, and the template's override setting for {property} is FAIL"
    fix = (
        "To continue, set {property} to REPLACE or DO_NOTHING in OverrideSettings. Show the existing resource: "
        "`{command}`."
    )
    command: str
    property: str
    resource: str
    thing: str


class Override(StrEnum):
    """Action if the resource already exists."""

    DO_NOTHING = "DO_NOTHING"
    REPLACE = "REPLACE"
    MERGE = "MERGE"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class ThingPlan:
    """The thing of a device; `logical` is its name in the template."""

    logical: str
    name: str
    attributes: Mapping[str, str]
    type_name: str | None
    groups: tuple[str, ...]
    overrides: Mapping[str, Override]

    def override(self, name: str) -> Override:
        """Return the override of a property of an existing thing."""
        return self.overrides.get(name, Override.DO_NOTHING)


@dataclass(frozen=True, slots=True)
class CertificatePlan:
    """The certificate of a device: by ID, by PEM text, or by CSR."""

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
    """A policy: an existing one, or a document that is named by its digest."""

    logical: str
    name: str
    document: str | None


@dataclass(frozen=True, slots=True)
class ProvisioningPlan:
    """Resources that one device gets."""

    thing: ThingPlan | None
    certificate: CertificatePlan | None
    policies: tuple[PolicyPlan, ...]
    device_configuration: Mapping[str, Any]
