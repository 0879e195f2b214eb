"""On which resources an operation acts, as policies name them (service authorization reference, "AWS IoT").

Most stand in the path by a name; some in the body, and some are ARNs. An operation on none of one's own is on `*`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from birthmark.awsiot.http.request_router import AwsRequest
from birthmark.awsiot.model import Account
from birthmark.awsiot.rules.provisioning_plans import TemplateInvalidError
from birthmark.awsiot.rules.provisioning_templates import CERTIFICATE, POLICY, THING, parse_template
from birthmark.untrusted_text import check_keys_once

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
"""Those that policies know by the certificate, group or resource whose ARN they are given."""
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
"""Members that are lists of names, and of which kind."""
_LISTED_ARNS: Mapping[str, str] = {"CreateJob": "targets", "AssociateTargetsWithJob": "targets"}
"""Members that are lists of ARNs."""
_SOME = "*"
_BY_DIGEST = frozenset({"cert", "cacert"})
"""Kinds whose name is a digest in hex, which is the same in either letter case."""


def resources_of(account: Account, call: AwsRequest) -> Sequence[str]:
    """Return the ARNs that a call acts on, or `*`."""
    operation = call.operation
    if operation.name in _BY_ARN:
        found = (call.get(name) for name in _ARNS if name in operation.by_name)
        return [_here(account, arn) for arn in found if arn] or ["*"]
    wanted = [(one.name, one.wire) for one in operation.members if one.place == "uri"]
    acted = [_arn(account, _KINDS[wire], call[name]) for name, wire in wanted if wire in _KINDS]
    acted += [_of_body(account, call, name) for name in _IN_BODY.get(operation.name, ())]
    for member, kind in _LISTED.get(operation.name, {}).items():
        acted += [_arn(account, kind, name) for name in call.part(member, list[str]) or ()]
    if (arns := _LISTED_ARNS.get(operation.name)) is not None:
        acted += [_here(account, arn) for arn in call.part(arns, list[str]) or ()]
    return acted or ["*"]


def template_of(call: AwsRequest) -> str:
    """Return the body of a new template. Stored ones may have duplicate keys. Raise `TemplateInvalidError`."""
    body: str = call["templateBody"]
    check_keys_once(body, TemplateInvalidError)
    return body


def acts_of(account: Account, call: AwsRequest) -> Iterator[tuple[str, str]]:
    """Yield action and ARN of what a call does besides: what it makes, attaches or publishes needs those rights too.

    This limits access keys that have a policy. AWS limits such a call by the policy of the role that it passes.
    """
    match call.operation.name:
        case "RegisterThing" | "StartThingRegistrationTask" | "CreateProvisioningTemplate":
            yield from _of_template(account, call["templateBody"])
        case "CreateProvisioningTemplateVersion":
            yield from _of_template(account, call["templateBody"])
        case "RegisterCACertificate" | "UpdateCACertificate":
            config = call.part("registrationConfig", dict[str, Any]) or {}
            if config.get("templateBody") is not None:
                yield from _of_template(account, str(config["templateBody"]))
        case "CreateTopicRule" | "ReplaceTopicRule":
            payload = call.part("topicRulePayload", dict[str, Any]) or {}
            actions = payload.get("actions")
            for one in (*(actions if isinstance(actions, list) else ()), payload.get("errorAction")):
                if isinstance(one, dict) and isinstance(to := one.get("republish"), dict):
                    topic = str(to.get("topic", "")).replace("$$", "$")
                    yield "iot:Publish", account.arn("topic", topic.partition("${")[0] + "*" * ("${" in topic))
        case "CreateRoleAlias" | "UpdateRoleAlias":
            if (role := call.get("roleArn")) is not None:
                yield "iam:PassRole", role
        case _:
            return


def _of_template(account: Account, body: str) -> Iterator[tuple[str, str]]:
    """Yield what devices of a template get, whatever their parameters are."""
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


def _here(account: Account, arn: str) -> str:
    """Return an ARN as this account writes it: regions are one here, and none leads around a policy."""
    parts = arn.split(":", 5)
    if len(parts) < _PARTS:
        return arn
    kind, slash, name = parts[5].partition("/")
    return ":".join([parts[0], "aws", parts[2], account.region, parts[4], f"{kind}{slash}{_name(kind, name)}"])


def _of_body(account: Account, call: AwsRequest, member: str) -> str:
    """Return the ARN of what the body has by its name, or by its ARN alone."""
    arn = call.get(f"{member.removesuffix('Name')}Arn")
    return _here(account, arn) if arn and call.get(member) is None else _arn(account, _KINDS[member], call[member])


def _arn(account: Account, kind: str, name: str) -> str:
    return account.arn(kind, _name(kind, name))


def _name(kind: str, name: str) -> str:
    return name.lower() if kind in _BY_DIGEST else name
