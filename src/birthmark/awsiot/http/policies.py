"""Policies, versions, and what they are attached to; the deprecated principal-policy forms too."""

from collections.abc import Mapping
from typing import Any

from birthmark.awsiot import wire
from birthmark.awsiot.http.routing import Call, Handler, paged
from birthmark.awsiot.model import CertificateId, parse_certificate_id
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.policies import UnknownPolicyError
from birthmark.awsiot.wire import parse_body

_MAX_VERSION_DIGITS = 9


def handlers(aws: AwsIot) -> Mapping[str, Handler]:
    """Return who serves the operations on policies."""
    account, policies = aws.account, aws.policies

    def target_of(arn: str) -> CertificateId:
        return parse_certificate_id(account.parse_arn(arn, "cert"))

    def version_of(call: Call) -> int:
        text = call["policyVersionId"]
        if not (text.isascii() and text.isdigit() and len(text) <= _MAX_VERSION_DIGITS):
            raise UnknownPolicyError(policy=call["policyName"], version=text[:20])
        return int(text)

    async def create(call: Call) -> Any:
        asked = parse_body(call.body, wire.PolicyDocument)
        policy = await policies.create(call["policyName"], asked.policy_document, actor=call.actor)
        entry = wire.policy_entry_json(account, policy.name)
        return entry | {"policyDocument": asked.policy_document, "policyVersionId": str(policy.default_version)}

    async def get(call: Call) -> Any:
        return wire.policy_json(account, *await policies.version(call["policyName"]))

    async def delete(call: Call) -> None:
        await policies.delete(call["policyName"], actor=call.actor)

    async def listing(call: Call) -> Any:
        ascending = call.flag("ascendingOrder", default=True)
        page = await policies.page(call.after, call.size, ascending=ascending)
        return paged("policies", [wire.policy_entry_json(account, policy.name) for policy in page.items], page)

    async def create_version(call: Call) -> Any:
        asked = parse_body(call.body, wire.PolicyDocument)
        as_default = call.flag("setAsDefault")
        made = await policies.add_version(
            call["policyName"], asked.policy_document, as_default=as_default, actor=call.actor
        )
        return {
            "policyArn": account.arn("policy", made.policy),
            "policyDocument": made.document,
            "policyVersionId": str(made.version),
            "isDefaultVersion": as_default,
        }

    async def get_version(call: Call) -> Any:
        return wire.policy_version_json(account, *await policies.version(call["policyName"], version_of(call)))

    async def list_versions(call: Call) -> Any:
        return wire.policy_versions_json(*await policies.versions(call["policyName"]))

    async def delete_version(call: Call) -> None:
        await policies.delete_version(call["policyName"], version_of(call), actor=call.actor)

    async def set_default(call: Call) -> None:
        await policies.set_default(call["policyName"], version_of(call), actor=call.actor)

    async def attach(call: Call) -> None:
        target = parse_body(call.body, wire.Target).target
        await policies.attach(call["policyName"], target_of(target), actor=call.actor)

    async def detach(call: Call) -> None:
        target = parse_body(call.body, wire.Target).target
        await policies.detach(call["policyName"], target_of(target), actor=call.actor)

    async def policies_of(arn: str, call: Call) -> Any:
        page = await policies.attached(target_of(arn), call.after, call.size)
        return paged("policies", [wire.policy_entry_json(account, name) for name in page.items], page)

    async def attached(call: Call) -> Any:
        await aws.certificates.get(target_of(call["target"]))
        return await policies_of(call["target"], call)

    async def targets_of(entries: str, name: str, call: Call) -> Any:
        page = await policies.targets(name, call.after, call.size)
        return paged(entries, [account.arn("cert", certificate_id) for certificate_id in page.items], page)

    async def targets(call: Call) -> Any:
        return await targets_of("targets", call["policyName"], call)

    async def attach_principal(call: Call) -> None:
        await policies.attach(call["policyName"], target_of(call["principal"]), actor=call.actor)

    async def detach_principal(call: Call) -> None:
        await policies.detach(call["policyName"], target_of(call["principal"]), actor=call.actor)

    async def principal_policies(call: Call) -> Any:
        return await policies_of(call["principal"], call)

    async def policy_principals(call: Call) -> Any:
        return await targets_of("principals", call["policyName"], call)

    async def effective(call: Call) -> Any:
        asked = parse_body(call.body, wire.EffectivePolicies)
        documents = await policies.documents_of(target_of(asked.principal))
        found = [wire.policy_entry_json(account, name) | {"policyDocument": document} for name, document in documents]
        return {"effectivePolicies": found}

    return {
        "CreatePolicy": create,
        "GetPolicy": get,
        "DeletePolicy": delete,
        "ListPolicies": listing,
        "CreatePolicyVersion": create_version,
        "ListPolicyVersions": list_versions,
        "GetPolicyVersion": get_version,
        "DeletePolicyVersion": delete_version,
        "SetDefaultPolicyVersion": set_default,
        "AttachPolicy": attach,
        "DetachPolicy": detach,
        "ListAttachedPolicies": attached,
        "ListTargetsForPolicy": targets,
        "AttachPrincipalPolicy": attach_principal,
        "DetachPrincipalPolicy": detach_principal,
        "ListPrincipalPolicies": principal_policies,
        "ListPolicyPrincipals": policy_principals,
        "GetEffectivePolicies": effective,
    }
