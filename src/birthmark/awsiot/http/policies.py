"""Policies, versions, and attachments; also the deprecated principal-policy operations."""

from collections.abc import Sequence
from typing import Any

from birthmark.awsiot import wire
from birthmark.awsiot.http.operation_routing_and_request_members import AwsRequest
from birthmark.awsiot.http.tags import tags_of
from birthmark.awsiot.model import group_of
from birthmark.awsiot.rules.policy import ACTIONS, PolicyMalformedError, PolicySimulation
from birthmark.awsiot.service import AwsIot
from birthmark.awsiot.service.policies import UnknownPolicyError
from birthmark.awsiot.wire import BodyInvalidError
from birthmark.untrusted_json_and_text import check_keys_once

_MAX_VERSION_DIGITS = 9
_MAX_ASKED, _MAX_RESOURCE = 10, 1024


def _document(request: AwsRequest) -> str:
    """Return the document of a new policy. Raise `PolicyMalformedError`.

    Duplicate keys are an error here; stored policies may contain them.
    """
    document: str = request["policyDocument"]
    check_keys_once(document, PolicyMalformedError)
    return document


class PolicyOperations:
    """The operations on policies."""

    def __init__(self, aws: AwsIot) -> None:
        self._devices = aws.devices
        self._policies = aws.policies
        self._things = aws.things

    async def create_policy(self, request: AwsRequest) -> Any:
        document = _document(request)
        policy = await self._policies.create(
            request["policyName"], document, tags=tags_of(request, request["policyName"]), actor=request.actor
        )
        entry = wire.policy_entry_json(request.account, policy.name)
        return entry | {"policyDocument": document, "policyVersionId": str(policy.default_version)}

    async def get_policy(self, request: AwsRequest) -> Any:
        return wire.policy_json(request.account, *await self._policies.version(request["policyName"]))

    async def delete_policy(self, request: AwsRequest) -> None:
        await self._policies.delete(request["policyName"], actor=request.actor)

    async def list_policies(self, request: AwsRequest) -> Any:
        ascending = request.flag("ascendingOrder", default=True)
        page = await self._policies.page(request.after, request.size, ascending=ascending)
        return request.paged(
            "policies", [wire.policy_entry_json(request.account, policy.name) for policy in page.items], page
        )

    async def create_policy_version(self, request: AwsRequest) -> Any:
        as_default = request.flag("setAsDefault")
        made = await self._policies.add_version(
            request["policyName"], _document(request), as_default=as_default, actor=request.actor
        )
        return {
            "policyArn": request.account.arn("policy", made.policy),
            "policyDocument": made.document,
            "policyVersionId": str(made.version),
            "isDefaultVersion": as_default,
        }

    async def get_policy_version(self, request: AwsRequest) -> Any:
        found = await self._policies.version(request["policyName"], _version_of(request))
        return wire.policy_version_json(request.account, *found)

    async def list_policy_versions(self, request: AwsRequest) -> Any:
        return wire.policy_versions_json(*await self._policies.versions(request["policyName"]))

    async def delete_policy_version(self, request: AwsRequest) -> None:
        await self._policies.delete_version(request["policyName"], _version_of(request), actor=request.actor)

    async def set_default_policy_version(self, request: AwsRequest) -> None:
        await self._policies.set_default(request["policyName"], _version_of(request), actor=request.actor)

    async def attach_policy(self, request: AwsRequest) -> None:
        await self._policies.attach(request["policyName"], self._target(request), actor=request.actor)

    async def detach_policy(self, request: AwsRequest) -> None:
        await self._policies.detach(request["policyName"], self._target(request), actor=request.actor)

    attach_principal_policy, detach_principal_policy = attach_policy, detach_policy

    async def list_principal_policies(self, request: AwsRequest) -> Any:
        page = await self._policies.attached(self._target(request), request.after, request.size)
        return request.paged("policies", [wire.policy_entry_json(request.account, name) for name in page.items], page)

    async def list_attached_policies(self, request: AwsRequest) -> Any:
        target = self._target(request)
        await self._policies.check_target(target)
        listed = self._policies.reaching if request.flag("recursive") else self._policies.attached
        page = await listed(target, request.after, request.size)
        return request.paged("policies", [wire.policy_entry_json(request.account, name) for name in page.items], page)

    async def list_targets_for_policy(self, request: AwsRequest) -> Any:
        page = await self._policies.targets(request["policyName"], request.after, request.size)
        return request.paged("targets", [request.account.target_arn(each) for each in page.items], page)

    async def list_policy_principals(self, request: AwsRequest) -> Any:
        """List certificates only, as the deprecated operation does."""
        page = await self._policies.targets(request["policyName"], request.after, request.size)
        found = [request.account.target_arn(each) for each in page.items if group_of(each) is None]
        return request.paged("principals", found, page)

    async def get_effective_policies(self, request: AwsRequest) -> Any:
        thing, principal = request.get("thingName"), request.get("principal")
        if thing is None and principal is None:
            raise BodyInvalidError(detail="give a principal, a thingName, or both")
        found: dict[str, str] = {}
        if principal is not None:
            target = request.account.parse_target(principal)
            await self._policies.check_target(target)
            found |= await self._policies.documents_of(target)
        if thing is not None:
            found |= (await self._policies.of_groups((await self._things.get(thing)).name))[1]
        entries = [(wire.policy_entry_json(request.account, name), found[name]) for name in sorted(found)]
        return {"effectivePolicies": [entry | {"policyDocument": document} for entry, document in entries]}

    async def test_authorization(self, request: AwsRequest) -> Any:
        asked = request.part("authInfos", list[wire.AuthInfo]) or []
        if not 1 <= len(asked) <= _MAX_ASKED or any(len(one.resources) > _MAX_ASKED for one in asked):
            raise BodyInvalidError(detail=f"authInfos has 1 to {_MAX_ASKED} entries of up to {_MAX_ASKED} resources")
        if any(len(resource) > _MAX_RESOURCE for one in asked for resource in one.resources):
            raise BodyInvalidError(detail=f"a resource has more than {_MAX_RESOURCE} characters")
        principal, add, skip = (
            request.get("principal"),
            request.part("policyNamesToAdd", list[str]) or [],
            request.part("policyNamesToSkip", list[str]) or [],
        )
        certificate_id = None if principal is None else request.account.parse_certificate_arn(principal)
        tested = await self._devices.build_simulation(certificate_id, request.get("clientId"), add, skip)
        return {"authResults": [self._tested_json(request, one, tested) for one in asked]}

    def _tested_json(self, request: AwsRequest, auth_info: wire.AuthInfo, tested: PolicySimulation) -> dict[str, Any]:
        if (action := ACTIONS.get(auth_info.action)) is None:
            raise BodyInvalidError(detail=f"actionType is {auth_info.action[:20]!r}, not one of {', '.join(ACTIONS)}")
        verdict = tested.judge(action, auth_info.resources)
        denied = {
            "implicitDeny": {"policies": self._policies_json(request, verdict.silent)},
            "explicitDeny": {"policies": self._policies_json(request, verdict.denying)},
        }
        return {
            "authInfo": {"actionType": auth_info.action, "resources": auth_info.resources},
            "allowed": {"policies": self._policies_json(request, verdict.allowing)},
            "denied": denied,
            "authDecision": verdict.outcome.value,
            "missingContextValues": list(verdict.missing),
        }

    def _policies_json(self, request: AwsRequest, names: Sequence[str]) -> list[dict[str, Any]]:
        return [wire.policy_entry_json(request.account, name) for name in names]

    def _target(self, request: AwsRequest) -> str:
        """Return the attachment target, from the current or the older member."""
        return request.account.parse_target(request["target"] or request["principal"])


def _version_of(request: AwsRequest) -> int:
    text = request["policyVersionId"]
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_VERSION_DIGITS):
        raise UnknownPolicyError(policy=request["policyName"], version=text[:20])
    return int(text)
