"""Resources of an operation, as named in policies (service authorization reference, "AWS IoT").

Most are names in the path; some are in the body or are ARNs. An operation without a resource of its own acts on `*`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from birthmark.awsiot.http.operation_routing_and_request_members import AwsRequest
from birthmark.awsiot.model import Account
from birthmark.awsiot.rules.provisioning_plan_model import TemplateInvalidError
from birthmark.awsiot.rules.provisioning_templates import CERTIFICATE, POLICY, THING, parse_template
from birthmark.untrusted_json_and_text import check_keys_once

_KINDS: Mapping[str, str] = {
    "authorizerName": "authorizer",
    "billingGroupName": "billinggroup",
    "caCertificateId": "cacert",
    "certificateId": "cert",
    "clientId": "client",
    "domainConfigurationName": "domainconfiguration",
    "indexName": "index",
    "jobId": "job",
    "jobTemplateId": "jobtemplate",
    "policyName": "policy",
    "roleAlias": "rolealias",
    "ruleName": "rule",
    "templateName": "provisioningtemplate",
    "thingGroupName": "thinggroup",
    "thingName": "thing",
    "thingTypeName": "thingtype",
}
_PARTS = 6
_ARNS = ("target", "principal", "resourceArn")
_BY_ARN = frozenset(
    {
        "AttachPolicy",
        "AttachPrincipalPolicy",
        "AttachThingPrincipal",
        "DetachPolicy",
        "DetachPrincipalPolicy",
        "DetachThingPrincipal",
        "ListAttachedPolicies",
        "ListTagsForResource",
        "TagResource",
        "UntagResource",
    }
)
"""Operations whose policy resource is the certificate, group, or resource in a given ARN."""
_IN_BODY: Mapping[str, Sequence[str]] = {
    "CreateProvisioningTemplate": ("templateName",),
    "AddThingToThingGroup": ("thingName", "thingGroupName"),
    "RemoveThingFromThingGroup": ("thingName", "thingGroupName"),
    "SetDefaultAuthorizer": ("authorizerName",),
    "UpdateThingGroupsForThing": ("thingName",),
}
_LISTED: Mapping[str, Mapping[str, str]] = {
    "UpdateThingGroupsForThing": {"thingGroupsToAdd": "thinggroup", "thingGroupsToRemove": "thinggroup"}
}
"""Members that are lists of names, with their resource kind."""
_LISTED_ARNS: Mapping[str, str] = {"CreateJob": "targets", "AssociateTargetsWithJob": "targets"}
"""Members that are lists of ARNs, by operation."""
_SOME = "*"
_BY_DIGEST = frozenset({"cert", "cacert"})
"""Kinds whose name is a hex digest, which is case-insensitive."""


def resources_of(account: Account, request: AwsRequest) -> Sequence[str]:
    """Return the ARNs on which a call acts, or `*`."""
    operation = request.operation
    if operation.name in _BY_ARN:
        found = (request.get(name) for name in _ARNS if name in operation.by_name)
        return [_normalize_arn(account, arn) for arn in found if arn] or ["*"]
    wanted = [(one.name, one.wire) for one in operation.members if one.place == "uri"]
    acted = [_arn(account, _KINDS[wire], request[name]) for name, wire in wanted if wire in _KINDS]
    acted += [_of_body(account, request, name) for name in _IN_BODY.get(operation.name, ())]
    for member, kind in _LISTED.get(operation.name, {}).items():
        acted += [_arn(account, kind, name) for name in request.part(member, list[str]) or ()]
    if (arns := _LISTED_ARNS.get(operation.name)) is not None:
        acted += [_normalize_arn(account, arn) for arn in request.part(arns, list[str]) or ()]
    return acted or ["*"]


def template_of(request: AwsRequest) -> str:
    """Return the body of a new template; stored ones may have duplicate keys.

    Raise `TemplateInvalidError`.
    """
    body: str = request["templateBody"]
    check_keys_once(body, TemplateInvalidError)
    return body


def implied_actions(account: Account, request: AwsRequest) -> Iterator[tuple[str, str]]:
    """Yield action and ARN of a call's further effects: creating, attaching, and publishing need those rights too.

    This limits access keys with a policy. AWS limits such a call by the policy of the passed role.
    """
    match request.operation.name:
        case "RegisterThing" | "StartThingRegistrationTask" | "CreateProvisioningTemplate":
            yield from _of_template(account, request["templateBody"])
        case "CreateProvisioningTemplateVersion":
            yield from _of_template(account, request["templateBody"])
        case "RegisterCACertificate" | "UpdateCACertificate":
            config = request.part("registrationConfig", dict[str, Any]) or {}
            if config.get("templateBody") is not None:
                yield from _of_template(account, str(config["templateBody"]))
        case "CreateTopicRule" | "ReplaceTopicRule":
            payload = request.part("topicRulePayload", dict[str, Any]) or {}
            actions = payload.get("actions")
            for one in (*(actions if isinstance(actions, list) else ()), payload.get("errorAction")):
                if isinstance(one, dict) and isinstance(to := one.get("republish"), dict):
                    topic = str(to.get("topic", "")).replace("$$", "$")
                    yield "iot:Publish", account.arn("topic", topic.partition("${")[0] + "*" * ("${" in topic))
        case "CreateRoleAlias" | "UpdateRoleAlias":
            if (role := request.get("roleArn")) is not None:
                yield "iam:PassRole", role
        case _:
            return


def _of_template(account: Account, body: str) -> Iterator[tuple[str, str]]:
    """Yield the grants of a template's devices, for any parameters."""
    template = parse_template(body)
    for certificate in template.of_kind(CERTIFICATE):
        given = certificate.properties
        is_new = "CertificateSigningRequest" in given
        yield (
            "iot:CreateCertificateFromCsr" if is_new else "iot:UpdateCertificate",
            _SOME if is_new else account.arn("cert", _SOME),
        )
        if "CertificatePem" in given:
            yield "iot:RegisterCertificate", "*"
    for thing in template.of_kind(THING):
        name = account.arn("thing", "*")
        yield "iot:CreateThing", name
        yield "iot:AttachThingPrincipal", account.arn("cert", "*")
        if thing.overrides:
            yield "iot:UpdateThing", name
            yield "iot:UpdateThingGroupsForThing", name
        if "ThingGroups" in thing.properties:
            yield "iot:AddThingToThingGroup", account.arn("thinggroup", "*")
    for policy in template.of_kind(POLICY):
        yield "iot:AttachPolicy", account.arn("cert", "*")
        if "PolicyDocument" in policy.properties:
            yield "iot:CreatePolicy", account.arn("policy", "*")


def _normalize_arn(account: Account, arn: str) -> str:
    """Return an ARN with the account's region, as all regions are equal and must not bypass a policy."""
    parts = arn.split(":", 5)
    if len(parts) < _PARTS:
        return arn
    kind, slash, name = parts[5].partition("/")
    return ":".join([parts[0], "aws", parts[2], account.region, parts[4], f"{kind}{slash}{_name(kind, name)}"])


def _of_body(account: Account, request: AwsRequest, member: str) -> str:
    """Return the ARN of a resource that the body names, directly or by ARN."""
    arn = request.get(f"{member.removesuffix('Name')}Arn")
    return (
        _normalize_arn(account, arn)
        if arn and request.get(member) is None
        else _arn(account, _KINDS[member], request[member])
    )


def _arn(account: Account, kind: str, name: str) -> str:
    return account.arn(kind, _name(kind, name))


def _name(kind: str, name: str) -> str:
    return name.lower() if kind in _BY_DIGEST else name
