"""Provisioning templates: from a JSON document to a plan for one device (developer guide, "Provisioning templates").

The intrinsic functions are those of "Fleet provisioning". A template is parsed and validated once;
`ParsedTemplate.plan` fills in the parameters of one device. A device's parameters are text only. In a policy document,
a value with special characters is rejected, as it would widen the policy.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from birthmark.awsiot.model import PrincipalType
from birthmark.awsiot.rules.provisioning_plan_model import (
    CertificatePlan,
    Override,
    PolicyPlan,
    ProvisioningPlan,
    RegistrationFailedError,
    TemplateInvalidError,
    ThingPlan,
)
from birthmark.awsiot.rules.template_functions import (
    CERTIFICATE_ID,
    FUNCTIONS,
    TemplateFunctions,
    function_of,
    registration_error,
)
from birthmark.untrusted_json_and_text import read_json

MAX_TEMPLATE_CHARS = 10_240
MAX_PARAMETERS_BYTES = 65_536
"""Size of names and values together."""
_MAX_DEPTH = 16
_MAX_RESOURCES = 20
_LOGICAL_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_PARAMETER = re.compile(r"[A-Za-z0-9_:.-]{1,128}")


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of a template, its properties not yet filled in."""

    logical: str
    kind: str
    properties: Mapping[str, Any]
    overrides: Mapping[str, Override]


@dataclass(frozen=True, slots=True)
class ParsedTemplate:
    """A parsed provisioning template."""

    parameters: Mapping[str, str | None]
    """Declared parameters with their defaults."""
    mappings: Mapping[str, Mapping[str, Mapping[str, Any]]]
    resources: tuple[Resource, ...]
    device_configuration: Mapping[str, Any]

    def of_kind(self, kind: str) -> Sequence[Resource]:
        """Return the resources of a type."""
        return [one for one in self.resources if one.kind == kind]

    def plan(self, values: Mapping[str, str]) -> ProvisioningPlan:
        """Return the plan for a device with these parameters. Raise `RegistrationFailedError`.

        Undeclared parameters are ignored.
        """
        if sum(len(name.encode()) + len(value.encode()) for name, value in values.items()) > MAX_PARAMETERS_BYTES:
            raise RegistrationFailedError(step="Parameters", detail=f"more than {MAX_PARAMETERS_BYTES} bytes of them")
        known = {name: value for name, value in values.items() if name in self.parameters or name == CERTIFICATE_ID}
        keys = {one.logical: (_KEYS[one.kind], one.properties.get(_KEYS[one.kind])) for one in self.resources}
        filling = TemplateFunctions(self.parameters, self.mappings, keys, known)
        missing = [name for name, default in self.parameters.items() if default is None and name not in values]
        if missing:
            of_subject = (
                " (the certificate's subject has none or several)" if missing[0].startswith(_OF_SUBJECT) else ""
            )
            raise RegistrationFailedError(
                step="Parameters", detail=f"{missing[0]} is missing, and has no default{of_subject}"
            )
        things = [_thing(one, filling) for one in self.of_kind(THING)]
        certificates = [_certificate(one, filling) for one in self.of_kind(CERTIFICATE)]
        policies = [_policy(one, filling) for one in self.of_kind(POLICY)]
        configuration = filling.of(self.device_configuration, "DeviceConfiguration")
        return ProvisioningPlan(
            things[0] if things else None, certificates[0] if certificates else None, tuple(policies), configuration
        )


_OF_SUBJECT = "AWS::IoT::Certificate::"
THING, CERTIFICATE, POLICY = "AWS::IoT::Thing", "AWS::IoT::Certificate", "AWS::IoT::Policy"
_PROPERTIES: Mapping[str, frozenset[str]] = {
    THING: frozenset({"ThingName", "AttributePayload", "ThingTypeName", "ThingGroups"}),
    CERTIFICATE: frozenset(
        {
            "CertificateSigningRequest",
            "CertificateId",
            "CertificatePem",
            "CACertificatePem",
            "Status",
            "ThingPrincipalType",
        }
    ),
    POLICY: frozenset({"PolicyName", "PolicyDocument"}),
}
_SPELLINGS = {"CertificateID": "CertificateId"}
_OVERRIDES: Mapping[str, Mapping[str, frozenset[Override]]] = {
    THING: {
        "AttributePayload": frozenset(Override),
        "ThingTypeName": frozenset(Override) - {Override.MERGE},
        "ThingGroups": frozenset(Override),
    },
    CERTIFICATE: {"Status": frozenset(Override) - {Override.MERGE}},
    POLICY: {},
}
_OVERRIDE_NAMES = {
    "ATTRIBUTE_PAYLOAD": "AttributePayload",
    "THING_TYPE_NAME": "ThingTypeName",
    "THING_GROUPS": "ThingGroups",
    "STATUS": "Status",
}
_SECTIONS = frozenset({"Parameters", "Mappings", "Resources", "DeviceConfiguration", "Version"})
_KEYS = {THING: "ThingName", CERTIFICATE: "CertificateId", POLICY: "PolicyName"}


@lru_cache(maxsize=256)
def parse_template(body: str) -> ParsedTemplate:
    """Return the template. Raise `TemplateInvalidError`."""
    if len(body) > MAX_TEMPLATE_CHARS:
        raise TemplateInvalidError(detail=f"it has more than {MAX_TEMPLATE_CHARS} characters")
    document = read_json(body.encode(errors="surrogatepass"), dict[str, Any], TemplateInvalidError)
    _check_depth(document)
    for section in document:
        if section not in _SECTIONS:
            raise TemplateInvalidError(detail=f"the section {section[:60]!r} is not known")
    parameters = {
        name: _parameter(name, given) for name, given in _object(document.get("Parameters", {}), "Parameters").items()
    }
    resources = [_resource(name, given) for name, given in _object(document.get("Resources", {}), "Resources").items()]
    if not resources:
        raise TemplateInvalidError(detail="it has no Resources")
    if len(resources) > _MAX_RESOURCES:
        raise TemplateInvalidError(detail=f"it has more than {_MAX_RESOURCES} Resources")
    for kind in (THING, CERTIFICATE):
        if sum(one.kind == kind for one in resources) > 1:
            raise TemplateInvalidError(detail=f"it has more than one {kind}")
    made = ParsedTemplate(
        parameters,
        _mappings(document.get("Mappings", {})),
        tuple(resources),
        _object(document.get("DeviceConfiguration", {}), "DeviceConfiguration"),
    )
    for resource in made.resources:
        _check_functions(made, resource.properties, f"Resources.{resource.logical}")
        _check_resource(resource)
    _check_functions(made, made.device_configuration, "DeviceConfiguration")
    return made


def _parameter(name: str, value: Any) -> str | None:
    declared = _object(value, f"Parameters.{name[:60]}")
    if _PARAMETER.fullmatch(name) is None:
        raise TemplateInvalidError(detail=f"a parameter cannot be called {name[:60]!r}")
    if declared.get("Type") != "String":
        raise TemplateInvalidError(detail=f"the Type of the parameter {name} is not String")
    default = declared.get("Default")
    if default is not None and not isinstance(default, str):
        raise TemplateInvalidError(detail=f"the Default of the parameter {name} is not a string")
    if unknown := [key for key in declared if key not in {"Type", "Default", "Description"}]:
        raise TemplateInvalidError(detail=f"the parameter {name} has {unknown[0][:60]!r}, which is not supported")
    return default


def _resource(name: str, given: Any) -> Resource:
    declared = _object(given, f"Resources.{name[:60]}")
    if _LOGICAL_NAME.fullmatch(name) is None:
        raise TemplateInvalidError(detail=f"a resource cannot be called {name[:60]!r}")
    kind = str(declared.get("Type"))
    if kind not in _PROPERTIES:
        raise TemplateInvalidError(detail=f"the Type of the resource {name} is not one of {', '.join(_PROPERTIES)}")
    if unknown := [key for key in declared if key not in {"Type", "Properties", "OverrideSettings"}]:
        raise TemplateInvalidError(detail=f"the resource {name} has {unknown[0][:60]!r}, which is not supported")
    properties = {
        _SPELLINGS.get(key, key): value
        for key, value in _object(declared.get("Properties", {}), f"{name}.Properties").items()
    }
    if unknown := [key for key in properties if key not in _PROPERTIES[kind]]:
        raise TemplateInvalidError(detail=f"{unknown[0][:60]} of the resource {name} is not served")
    overrides: dict[str, Override] = {}
    for key, value in _object(declared.get("OverrideSettings", {}), f"{name}.OverrideSettings").items():
        known = _OVERRIDES[kind].get(_OVERRIDE_NAMES.get(key, key), frozenset())
        if not isinstance(value, str) or value not in known:
            raise TemplateInvalidError(detail=f"the OverrideSettings of {name} cannot have {key[:60]}: {value!r:.40}")
        overrides[_OVERRIDE_NAMES.get(key, key)] = Override(value)
    return Resource(name, kind, properties, overrides)


def _check_resource(resource: Resource) -> None:
    """Raise if the properties of a resource conflict regardless of the parameters."""
    given, name = resource.properties, resource.logical
    match resource.kind:
        case _ if resource.kind == THING and "ThingName" not in given:
            raise TemplateInvalidError(detail=f"the thing {name} has no ThingName")
        case _ if resource.kind == CERTIFICATE:
            ways = [one for one in ("CertificateId", "CertificatePem", "CertificateSigningRequest") if one in given]
            if len(ways) != 1:
                raise TemplateInvalidError(
                    detail=f"the certificate {name} needs one of CertificateId, CertificatePem and "
                    "CertificateSigningRequest"
                )
            if "CACertificatePem" in given and ways != ["CertificatePem"]:
                raise TemplateInvalidError(detail=f"CACertificatePem of {name} requires CertificatePem")
        case _ if resource.kind == POLICY and ("PolicyName" in given) == ("PolicyDocument" in given):
            raise TemplateInvalidError(detail=f"the policy {name} needs PolicyName or PolicyDocument, and not both")


def _mappings(given: Any) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    found = _object(given, "Mappings")
    for name, keys in found.items():
        for key, values in _object(keys, f"Mappings.{name[:60]}").items():
            for value in _object(values, f"Mappings.{name[:60]}.{key[:60]}").values():
                if not isinstance(value, str) and not (
                    isinstance(value, list) and all(isinstance(one, str) for one in value)
                ):
                    raise TemplateInvalidError(
                        detail=f"Mappings.{name[:60]} holds a value that is neither a string nor a list of strings"
                    )
    return found


def _check_functions(template: ParsedTemplate, value: Any, path: str) -> None:
    """Raise for unknown functions and for references to missing resources or parameters."""
    if isinstance(value, list):
        for one in value:
            _check_functions(template, one, path)
        return
    if not isinstance(value, dict):
        return
    named = function_of(value)
    if named is not None and (len(value) != 1 or named not in FUNCTIONS):
        raise TemplateInvalidError(detail=f"{path}: {named[:60]} is not a function alone in its braces")
    if named == "Ref":
        name = value["Ref"]
        logical = {one.logical for one in template.resources}
        if not isinstance(name, str) or name not in {*template.parameters, *logical, CERTIFICATE_ID}:
            raise TemplateInvalidError(detail=f"{path}: Ref {str(name)[:60]!r} names no parameter and no resource")
        return
    for key, inner in value.items():
        _check_functions(template, inner, path if named else f"{path}.{key[:60]}")


def _check_depth(value: Any, left: int = _MAX_DEPTH) -> None:
    if isinstance(value, dict | list):
        if not left:
            raise TemplateInvalidError(detail=f"it is deeper than {_MAX_DEPTH} levels")
        for inner in value.values() if isinstance(value, dict) else value:
            _check_depth(inner, left - 1)


def _object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TemplateInvalidError(detail=f"{path} is not a JSON object")
    return value


def _thing(resource: Resource, filling: TemplateFunctions) -> ThingPlan:
    place, given = f"Resources.{resource.logical}", resource.properties
    attributes = filling.of(given.get("AttributePayload", {}), f"{place}.AttributePayload")
    if (
        isinstance(attributes, dict)
        and set(attributes) == {"attributes"}
        and isinstance(attributes["attributes"], dict)
    ):
        attributes = attributes["attributes"]  # as in CreateThing
    if not isinstance(attributes, dict) or not all(isinstance(value, str) for value in attributes.values()):
        raise registration_error(f"{place}.AttributePayload", "attributes are names with texts")
    groups = filling.of(given.get("ThingGroups", []), f"{place}.ThingGroups")
    if not isinstance(groups, list) or not all(isinstance(one, str) for one in groups):
        raise registration_error(f"{place}.ThingGroups", "groups are a list of texts")
    type_name = filling.text(given["ThingTypeName"], f"{place}.ThingTypeName") if "ThingTypeName" in given else None
    name = filling.text(given["ThingName"], f"{place}.ThingName")
    return ThingPlan(
        resource.logical, name, attributes, type_name or None, tuple(dict.fromkeys(groups)), resource.overrides
    )


def _certificate(resource: Resource, filling: TemplateFunctions) -> CertificatePlan:
    place, given = f"Resources.{resource.logical}", resource.properties
    texts = {
        name: filling.text(given[name], f"{place}.{name}") if name in given else None
        for name in sorted(_PROPERTIES[CERTIFICATE])
    }
    status = (texts["Status"] or "ACTIVE").upper()
    if status not in {"ACTIVE", "INACTIVE"}:
        raise registration_error(f"{place}.Status", f"{status[:40]!r} is neither ACTIVE nor INACTIVE")
    kind = texts["ThingPrincipalType"] or "NON_EXCLUSIVE_THING"
    if kind not in {"EXCLUSIVE_THING", "NON_EXCLUSIVE_THING"}:
        raise registration_error(
            f"{place}.ThingPrincipalType", f"{kind[:40]!r} is neither EXCLUSIVE_THING nor NON_EXCLUSIVE_THING"
        )
    return CertificatePlan(
        resource.logical,
        texts["CertificateId"],
        texts["CertificatePem"],
        texts["CACertificatePem"],
        texts["CertificateSigningRequest"],
        status,
        kind == PrincipalType.EXCLUSIVE,
        resource.overrides.get("Status", Override.DO_NOTHING),
    )


def _policy(resource: Resource, filling: TemplateFunctions) -> PolicyPlan:
    place, given = f"Resources.{resource.logical}", resource.properties
    if "PolicyName" in given:
        return PolicyPlan(resource.logical, filling.text(given["PolicyName"], f"{place}.PolicyName"), None)
    document = filling.of(given["PolicyDocument"], f"{place}.PolicyDocument", is_policy=True)
    if not isinstance(document, str):
        document = json.dumps(document, ensure_ascii=False)
    return PolicyPlan(resource.logical, hashlib.sha256(document.encode(errors="replace")).hexdigest(), document)
