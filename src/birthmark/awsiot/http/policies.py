"""Policies, versions, and what they are attached to; the deprecated principal-policy forms too."""

from collections.abc import Sequence
from typing import Any

from birthmark.awsiot import wire
from birthmark.awsiot.http.request_router import AwsRequest
from birthmark.awsiot.http.tags import tags_of
from birthmark.awsiot.model import group_of
from birthmark.awsiot.rules.policy import ACTIONS, PolicyMalformedError, PolicySimulation
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.policies import UnknownPolicyError
from birthmark.awsiot.wire import BodyInvalidError
from birthmark.untrusted_text import check_keys_once

_MAX_VERSION_DIGITS = 9
_MAX_ASKED, _MAX_RESOURCE = 10, 1024


def _document(call: AwsRequest) -> str:
    """Return the document of a new policy. Stored policies may have duplicate keys. Raise `PolicyMalformedError`."""
    document: str = call["policyDocument"]
    check_keys_once(document, PolicyMalformedError)
    return document


class PolicyOperations:
    """The operations on policies."""

    def __init__(self, aws: AwsIot) -> None:
        self._devices = aws.devices
        self._policies = aws.policies
        self._things = aws.things

    async def create_policy(self, call: AwsRequest) -> Any:
        document = _document(call)
        policy = await self._policies.create(
            call["policyName"], document, tags=tags_of(call, call["policyName"]), actor=call.actor
        )
        entry = wire.policy_entry_json(call.account, policy.name)
        return entry | {"policyDocument": document, "policyVersionId": str(policy.default_version)}

    async def get_policy(self, call: AwsRequest) -> Any:
        return wire.policy_json(call.account, *await self._policies.version(call["policyName"]))

    async def delete_policy(self, call: AwsRequest) -> None:
        await self._policies.delete(call["policyName"], actor=call.actor)

    async def list_policies(self, call: AwsRequest) -> Any:
        ascending = call.flag("ascendingOrder", default=True)
        page = await self._policies.page(call.after, call.size, ascending=ascending)
        return call.paged(
            "policies", [wire.policy_entry_json(call.account, policy.name) for policy in page.items], page
        )

    async def create_policy_version(self, call: AwsRequest) -> Any:
        as_default = call.flag("setAsDefault")
        made = await self._policies.add_version(
            call["policyName"], _document(call), as_default=as_default, actor=call.actor
        )
        return {
            "policyArn": call.account.arn("policy", made.policy),
            "policyDocument": made.document,
            "policyVersionId": str(made.version),
            "isDefaultVersion": as_default,
        }

    async def get_policy_version(self, call: AwsRequest) -> Any:
        found = await self._policies.version(call["policyName"], _version_of(call))
        return wire.policy_version_json(call.account, *found)

    async def list_policy_versions(self, call: AwsRequest) -> Any:
        return wire.policy_versions_json(*await self._policies.versions(call["policyName"]))

    async def delete_policy_version(self, call: AwsRequest) -> None:
        await self._policies.delete_version(call["policyName"], _version_of(call), actor=call.actor)

    async def set_default_policy_version(self, call: AwsRequest) -> None:
        await self._policies.set_default(call["policyName"], _version_of(call), actor=call.actor)

    async def attach_policy(self, call: AwsRequest) -> None:
        await self._policies.attach(call["policyName"], self._target(call), actor=call.actor)

    async def detach_policy(self, call: AwsRequest) -> None:
        await self._policies.detach(call["policyName"], self._target(call), actor=call.actor)

    attach_principal_policy, detach_principal_policy = attach_policy, detach_policy

    async def list_principal_policies(self, call: AwsRequest) -> Any:
        page = await self._policies.attached(self._target(call), call.after, call.size)
        return call.paged("policies", [wire.policy_entry_json(call.account, name) for name in page.items], page)

    async def list_attached_policies(self, call: AwsRequest) -> Any:
        target = self._target(call)
        await self._policies.check_target(target)
        listed = self._policies.reaching if call.flag("recursive") else self._policies.attached
        page = await listed(target, call.after, call.size)
        return call.paged("policies", [wire.policy_entry_json(call.account, name) for name in page.items], page)

    async def list_targets_for_policy(self, call: AwsRequest) -> Any:
        page = await self._policies.targets(call["policyName"], call.after, call.size)
        return call.paged("targets", [call.account.target_arn(each) for each in page.items], page)

    async def list_policy_principals(self, call: AwsRequest) -> Any:
        """List certificates alone, as the older form of the request has it."""
        page = await self._policies.targets(call["policyName"], call.after, call.size)
        found = [call.account.target_arn(each) for each in page.items if group_of(each) is None]
        return call.paged("principals", found, page)

    async def get_effective_policies(self, call: AwsRequest) -> Any:
        thing, principal = call.get("thingName"), call.get("principal")
        if thing is None and principal is None:
            raise BodyInvalidError(detail="give a principal, a thingName, or both")
        found: dict[str, str] = {}
        if principal is not None:
            target = call.account.parse_target(principal)
            await self._policies.check_target(target)
            found |= await self._policies.documents_of(target)
        if thing is not None:
            found |= (await self._policies.of_groups((await self._things.get(thing)).name))[1]
        entries = [(wire.policy_entry_json(call.account, name), found[name]) for name in sorted(found)]
        return {"effectivePolicies": [entry | {"policyDocument": document} for entry, document in entries]}

    async def test_authorization(self, call: AwsRequest) -> Any:
        asked = call.part("authInfos", list[wire.AuthInfo]) or []
        if not 1 <= len(asked) <= _MAX_ASKED or any(len(one.resources) > _MAX_ASKED for one in asked):
            raise BodyInvalidError(detail=f"authInfos has 1 to {_MAX_ASKED} entries of up to {_MAX_ASKED} resources")
        if any(len(resource) > _MAX_RESOURCE for one in asked for resource in one.resources):
            raise BodyInvalidError(detail=f"a resource has more than {_MAX_RESOURCE} characters")
        principal, add, skip = (
            call.get("principal"),
            call.part("policyNamesToAdd", list[str]) or [],
            call.part("policyNamesToSkip", list[str]) or [],
        )
        certificate_id = None if principal is None else call.account.parse_certificate_arn(principal)
        tested = await self._devices.tested(certificate_id, call.get("clientId"), add, skip)
        return {"authResults": [self._tested_json(call, one, tested) for one in asked]}

    def _tested_json(self, call: AwsRequest, asked: wire.AuthInfo, tested: PolicySimulation) -> dict[str, Any]:
        if (action := ACTIONS.get(asked.action)) is None:
            raise BodyInvalidError(detail=f"actionType is {asked.action[:20]!r}, and none of {', '.join(ACTIONS)}")
        verdict = tested.judge(action, asked.resources)
        denied = {
            "implicitDeny": {"policies": self._policies_json(call, verdict.silent)},
            "explicitDeny": {"policies": self._policies_json(call, verdict.denying)},
        }
        return {
            "authInfo": {"actionType": asked.action, "resources": asked.resources},
            "allowed": {"policies": self._policies_json(call, verdict.allowing)},
            "denied": denied,
            "authDecision": verdict.outcome.value,
            "missingContextValues": list(verdict.missing),
        }

    def _policies_json(self, call: AwsRequest, names: Sequence[str]) -> list[dict[str, Any]]:
        return [wire.policy_entry_json(call.account, name) for name in names]

    def _target(self, call: AwsRequest) -> str:
        """Return what a policy hangs on, under the member's name of today or its older one."""
        return call.account.parse_target(call["target"] or call["principal"])


def _version_of(call: AwsRequest) -> int:
    text = call["policyVersionId"]
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_VERSION_DIGITS):
        raise UnknownPolicyError(policy=call["policyName"], version=text[:20])
    return int(text)
