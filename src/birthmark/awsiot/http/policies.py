"""Policies, versions, and what they are attached to; the deprecated principal-policy forms too."""

from typing import Any

from birthmark.awsiot import wire
from birthmark.awsiot.http.routing import Call
from birthmark.awsiot.model import CertificateId
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.policies import UnknownPolicyError

_MAX_VERSION_DIGITS = 9


class PolicyOperations:
    """The operations on policies."""

    def __init__(self, aws: AwsIot) -> None:
        self._account = aws.account
        self._certificates = aws.certificates
        self._policies = aws.policies
        self._things = aws.things

    async def create_policy(self, call: Call) -> Any:
        document = call["policyDocument"]
        policy = await self._policies.create(call["policyName"], document, actor=call.actor)
        entry = wire.policy_entry_json(self._account, policy.name)
        return entry | {"policyDocument": document, "policyVersionId": str(policy.default_version)}

    async def get_policy(self, call: Call) -> Any:
        return wire.policy_json(self._account, *await self._policies.version(call["policyName"]))

    async def delete_policy(self, call: Call) -> None:
        await self._policies.delete(call["policyName"], actor=call.actor)

    async def list_policies(self, call: Call) -> Any:
        ascending = call.flag("ascendingOrder", default=True)
        page = await self._policies.page(call.after, call.size, ascending=ascending)
        return call.paged(
            "policies", [wire.policy_entry_json(self._account, policy.name) for policy in page.items], page
        )

    async def create_policy_version(self, call: Call) -> Any:
        as_default = call.flag("setAsDefault")
        made = await self._policies.add_version(
            call["policyName"], call["policyDocument"], as_default=as_default, actor=call.actor
        )
        return {
            "policyArn": self._account.arn("policy", made.policy),
            "policyDocument": made.document,
            "policyVersionId": str(made.version),
            "isDefaultVersion": as_default,
        }

    async def get_policy_version(self, call: Call) -> Any:
        found = await self._policies.version(call["policyName"], _version_of(call))
        return wire.policy_version_json(self._account, *found)

    async def list_policy_versions(self, call: Call) -> Any:
        return wire.policy_versions_json(*await self._policies.versions(call["policyName"]))

    async def delete_policy_version(self, call: Call) -> None:
        await self._policies.delete_version(call["policyName"], _version_of(call), actor=call.actor)

    async def set_default_policy_version(self, call: Call) -> None:
        await self._policies.set_default(call["policyName"], _version_of(call), actor=call.actor)

    async def attach_policy(self, call: Call) -> None:
        await self._policies.attach(call["policyName"], self._target(call), actor=call.actor)

    async def detach_policy(self, call: Call) -> None:
        await self._policies.detach(call["policyName"], self._target(call), actor=call.actor)

    attach_principal_policy, detach_principal_policy = attach_policy, detach_policy

    async def list_principal_policies(self, call: Call) -> Any:
        page = await self._policies.attached(self._target(call), call.after, call.size)
        return call.paged("policies", [wire.policy_entry_json(self._account, name) for name in page.items], page)

    async def list_attached_policies(self, call: Call) -> Any:
        await self._certificates.get(self._target(call))
        return await self.list_principal_policies(call)

    async def list_targets_for_policy(self, call: Call) -> Any:
        page = await self._policies.targets(call["policyName"], call.after, call.size)
        entries = "principals" if call.operation.name == "ListPolicyPrincipals" else "targets"
        return call.paged(entries, [self._account.arn("cert", each) for each in page.items], page)

    list_policy_principals = list_targets_for_policy

    async def get_effective_policies(self, call: Call) -> Any:
        if (thing := call.get("thingName")) is not None:
            await self._things.get(thing)  # no policy hangs on it: only its groups could add some
        documents = await self._policies.documents_of(self._target(call))
        entries = [(wire.policy_entry_json(self._account, name), document) for name, document in documents]
        return {"effectivePolicies": [entry | {"policyDocument": document} for entry, document in entries]}

    def _target(self, call: Call) -> CertificateId:
        """Return the certificate a policy hangs on, under the member's name of today or its older one."""
        return self._account.parse_certificate_arn(call["target"] or call["principal"])


def _version_of(call: Call) -> int:
    text = call["policyVersionId"]
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_VERSION_DIGITS):
        raise UnknownPolicyError(policy=call["policyName"], version=text[:20])
    return int(text)
