"""Policies, their versions, and their attachments to certificates and thing groups."""

import shlex
from collections.abc import Sequence
from dataclasses import replace

from birthmark.awsiot.domain_events import GrantsChanged, PolicyChanged, ThingGroupChanged
from birthmark.awsiot.model import NamedPolicy, PolicyName, PolicyVersion, group_of, parse_policy_name
from birthmark.awsiot.rules.policy import are_of_one_device, check_new
from birthmark.awsiot.service.base import AccountService
from birthmark.awsiot.service.certificates import UnknownCertificateError
from birthmark.awsiot.service.tags import NO_TAGS, Tags, tag_deletes, written
from birthmark.awsiot.service.thing_groups import DynamicGroupError, UnknownThingGroupError
from birthmark.awsiot.store import certificates_and_access_keys as certificate_store
from birthmark.awsiot.store import policies as store
from birthmark.awsiot.store import registry as registry_store
from birthmark.clock_and_entropy import new_uuid
from birthmark.errors import ChangedMeanwhileError, ConflictError, NotFoundError, PolicyError
from birthmark.store import Changes, Event, retry_on_conflict
from birthmark.store.pagination import Page, page_of
from birthmark.store.table_statements import MAX_LIST_VALUES, list_parameters

MAX_VERSIONS = 5
MAX_ATTACHED = 10
_MAX_PAGE = 1000

_DETACH_ALL = (
    'aws iot list-targets-for-policy --policy-name {policy} --query "targets[]" --output text '
    "| xargs -rn1 aws iot detach-policy --policy-name {policy} --target"
)
_DELETE_VERSIONS = (
    "aws iot list-policy-versions --policy-name {policy} "
    "--query 'policyVersions[?!isDefaultVersion].versionId' --output text "
    "| xargs -rn1 aws iot delete-policy-version --policy-name {policy} --policy-version-id"
)


class UnknownPolicyError(NotFoundError):
    """The policy or policy version does not exist."""

    code = "awsiot.unknown_policy"
    message = "Policy not found (name={policy}, version={version})"
    fix = "List policies: `aws iot list-policies`. Names are case-sensitive."
    policy: str
    version: object


class PolicyExistsError(ConflictError):
    """A policy with this name exists already."""

    code = "awsiot.policy_exists"
    message = "Policy cannot be created - name already exists (name={policy})"
    fix = (
        "Show the existing policy: `aws iot get-policy --policy-name {policy}`. Create a new version of this policy, "
        "or choose another name."
    )
    policy: str


class PolicyInUseError(ConflictError):
    """The policy or policy version cannot be deleted."""

    code = "awsiot.policy_in_use"
    message = "The policy cannot be deleted: {detail} (name={policy})"
    fix = "Show what prevents the deletion: `{command}`"
    command: str
    detail: str
    policy: str


class TooManyVersionsError(ConflictError):
    """The policy has the maximum number of versions."""

    code = "awsiot.policy_versions"
    message = "The policy {policy} already has the maximum number of versions (5)"
    fix = (
        "Delete the oldest version that is not the default: `aws iot delete-policy-version --policy-name {policy} "
        "--policy-version-id {oldest}`"
    )
    oldest: int
    policy: str


class TooManyPoliciesError(PolicyError):
    """The certificate or thing group has the maximum number of policies."""

    code = "awsiot.policy_limit"
    cause = "{target} has 10 policies, the maximum for a certificate or a thing group."
    fix = (
        "Detach a policy, or merge statements into fewer policies. List certificates with their own policies and the "
        "policies of their things: `birthmark aws certificate ls`"
    )
    target: str


class Policies(AccountService):
    """The policies of the account."""

    async def get(self, name: str) -> NamedPolicy:
        """Return a policy. Raise `UnknownPolicyError`."""
        row = await self.database.one(store.GET, name=name)
        if row is None:
            raise _unknown(name)
        return store.POLICIES.of(row)

    async def version(self, name: str, version: int | None = None) -> tuple[NamedPolicy, PolicyVersion]:
        """Return a policy and one of its versions, the default if None. Raise `UnknownPolicyError`."""
        policy = await self.get(name)
        wanted = policy.default_version if version is None else version
        row = await self.database.one(store.GET_VERSION, policy=name, version=wanted)
        if row is None:
            raise _unknown(name, wanted)
        return policy, store.POLICY_VERSIONS.of(row)

    async def versions(self, name: str) -> tuple[NamedPolicy, Sequence[PolicyVersion]]:
        """Return a policy and all of its versions, newest first."""
        policy = await self.get(name)
        return policy, [store.POLICY_VERSIONS.of(row) for row in await self.database.all(store.VERSIONS, policy=name)]

    async def create(self, name: str, document: str, *, tags: Tags = NO_TAGS, actor: str) -> NamedPolicy:
        """Create a policy with one version. Raise `PolicyMalformedError` or `PolicyExistsError`."""
        made, changes = self.new_policy_changes(name, document, PolicyExistsError(policy=name), tags=tags, actor=actor)
        await self.database.commit(changes)
        return made

    def new_policy_changes(
        self,
        name: str,
        document: str,
        otherwise: PolicyExistsError | None = None,
        *,
        tags: Tags = NO_TAGS,
        actor: str,
    ) -> tuple[NamedPolicy, Changes]:
        """Return a new policy with one version, and the writes that create it. Raise `PolicyMalformedError`.

        If the name exists at commit, the commit raises `otherwise`; by default, a conflict error.
        """
        known = parse_policy_name(name)
        check_new(known, document)
        now = self.clock.now()
        made = NamedPolicy(known, 1, 1, new_uuid(self.entropy), now, now)
        changes = Changes().run(store.ADD, expect=1, otherwise=otherwise, **store.POLICIES.row(made))
        changes.run(store.ADD_VERSION, **store.POLICY_VERSIONS.row(PolicyVersion(known, 1, document, now)))
        changes.merge(written("policy", known, tags))
        return made, changes.audit(actor, "awsiot.policy_create", known)

    async def add_version(self, name: str, document: str, *, as_default: bool, actor: str) -> PolicyVersion:
        """Add a version. Raise `PolicyMalformedError` or `TooManyVersionsError`."""
        policy, present = await self.versions(name)
        check_new(name, document)
        if len(present) >= MAX_VERSIONS:
            oldest = min(version.version for version in present if version.version != policy.default_version)
            raise TooManyVersionsError(policy=name, oldest=oldest)
        number = policy.last_version + 1
        made = PolicyVersion(policy.name, number, document, self.clock.now())
        changes = Changes().run(store.ADD_VERSION, **store.POLICY_VERSIONS.row(made))
        default = number if as_default else policy.default_version
        await self._change(changes, replace(policy, last_version=number, default_version=default), actor=actor)
        return made

    async def set_default(self, name: str, version: int, *, actor: str) -> None:
        """Set the default version. Raise `UnknownPolicyError`."""
        policy, known = await self.version(name, version)
        await self._change(Changes(), replace(policy, default_version=known.version), actor=actor)

    async def delete_version(self, name: str, version: int, *, actor: str) -> None:
        """Remove a version that is not the default. Raise `PolicyInUseError`."""
        policy, known = await self.version(name, version)
        if known.version == policy.default_version:
            raise PolicyInUseError(
                policy=name,
                detail=f"version {version} is the default",
                command=f"aws iot list-policy-versions --policy-name {shlex.quote(name)}",
            )
        await self._change(Changes().run(store.DELETE_VERSION, policy=name, version=version), policy, actor=actor)

    async def delete(self, name: str, *, actor: str) -> None:
        """Delete a policy with one version and no targets. Raise `PolicyInUseError`."""
        await retry_on_conflict(lambda: self._delete(name, actor=actor))

    async def _delete(self, name: str, *, actor: str) -> None:
        policy, present = await self.versions(name)
        detail, command = None, ""
        if await self.database.all(store.TARGETS_OF, policy=name, after="", limit=1):
            detail, command = "it is attached to certificates or thing groups", _DETACH_ALL
        elif len(present) > 1:
            detail, command = "it has versions besides the default", _DELETE_VERSIONS
        if detail is not None:
            raise PolicyInUseError(policy=name, detail=detail, command=command.format(policy=shlex.quote(name)))
        changes = Changes().run(store.POLICY_IS_THERE, expect=1, key_name=name)
        changes.run(store.DELETE, expect=1, name=name, generation_id=policy.generation_id)
        changes.run(store.DELETE_VERSIONS, policy=name).merge(tag_deletes("policy", name))
        await self.database.commit(changes.audit(actor, "awsiot.policy_delete", name))

    async def page(self, after: str | None, size: int, *, ascending: bool) -> Page[NamedPolicy]:
        """Return policies by name."""
        query = store.LIST if ascending else store.LIST_DOWN
        rows = await self.database.all(query, after=after or "", limit=size + 1)
        return page_of([store.POLICIES.of(row) for row in rows], size, [row["name"] for row in rows])

    async def attach(self, name: str, target: str, *, actor: str) -> None:
        """Attach a policy; idempotent. Raise `NotFoundError`, `TooManyPoliciesError`."""
        await retry_on_conflict(lambda: self._attach(name, target, actor=actor))

    async def _attach(self, name: str, target: str, *, actor: str) -> None:
        _, default = await self.version(name)
        await self.check_target(target)
        await self._check_static(target)
        present = (await self.attached(target, "", _MAX_PAGE)).items
        is_attached = name in present
        if len(present) >= MAX_ATTACHED and not is_attached:
            raise TooManyPoliciesError(target=target)
        is_wide = not are_of_one_device([default.document])
        changes = attaching(name, target, is_new=not is_attached, is_wide=is_wide, actor=actor)
        await self.database.commit(changes)

    async def detach(self, name: str, target: str, *, actor: str) -> None:
        """Detach a policy; idempotent."""
        changes = Changes().run(store.DETACH, policy=name, target=target)
        changes.audit(actor, "awsiot.policy_detach", name, **_named(target))
        await self.database.commit(changes.event(_changed(target)))

    async def check_target(self, target: str) -> None:
        """Raise `UnknownCertificateError` or `UnknownThingGroupError` if the target does not exist."""
        if (group := group_of(target)) is None:
            if await self.database.one(certificate_store.GET, id=target) is None:
                raise UnknownCertificateError(certificate_id=target)
        elif await self.database.one(registry_store.GET_GROUP, name=group) is None:
            raise UnknownThingGroupError(group=group[:128])

    async def _check_static(self, target: str) -> None:
        """Raise `DynamicGroupError`: permissions must not depend on a search."""
        group = group_of(target)
        row = None if group is None else await self.database.one(registry_store.GET_GROUP, name=group)
        if row is not None and row["query"] is not None:
            raise DynamicGroupError(group=row["name"])

    async def attached(self, target: str, after: str, size: int) -> Page[PolicyName]:
        """Return the names of the policies of a certificate or a group."""
        rows = await self.database.all(store.POLICIES_OF, target=target, after=after, limit=size + 1)
        names = [PolicyName(row["policy"]) for row in rows]
        return page_of(names, size, names)

    async def reaching(self, target: str, after: str, size: int) -> Page[PolicyName]:
        """Return the effective policies of a target.

        These include the policies of parent groups or, for a certificate, of its things' groups.
        """
        rows = await self.database.all(
            registry_store.POLICIES_REACHING,
            target=target,
            thing_group=group_of(target) or "",
            after=after,
            limit=size + 1,
        )
        names = [PolicyName(row["policy"]) for row in rows]
        return page_of(names, size, names)

    async def targets(self, name: str, after: str, size: int) -> Page[str]:
        """Return a policy's targets, certificates before groups. Raise `UnknownPolicyError`."""
        await self.get(name)
        rows = await self.database.all(store.TARGETS_OF, policy=name, after=after, limit=size + 1)
        found = [str(row["target"]) for row in rows]
        return page_of(found, size, found)

    async def documents_of(self, target: str) -> Sequence[tuple[str, str]]:
        """Return name and default document of each policy of a certificate or a group."""
        rows = await self.database.all(store.DOCUMENTS_OF, target=target)
        return [(row["name"], row["document"]) for row in rows]

    async def documents_named(self, names: Sequence[str]) -> dict[str, str]:
        """Return the default documents of policies by name. Raise `UnknownPolicyError` for a missing one."""
        found: dict[str, str] = {}
        for first in range(0, len(names), MAX_LIST_VALUES):
            rows = await self.database.all(
                store.DOCUMENTS_NAMED, **list_parameters(names[first : first + MAX_LIST_VALUES])
            )
            found |= {row["name"]: row["document"] for row in rows}
        for name in names:
            if name not in found:
                raise _unknown(name)
        return found

    async def of_groups(self, thing: str) -> tuple[frozenset[str], dict[str, str]]:
        """Return a thing's groups with their parents, and the documents of their policies by name."""
        rows = await self.database.all(registry_store.GROUPS_AND_DOCUMENTS_OF, thing=thing)
        documents = {row["name"]: row["document"] for row in rows if row["document"] is not None}
        return frozenset(row["ancestor"] for row in rows), documents

    async def _change(self, changes: Changes, policy: NamedPolicy, *, actor: str) -> None:
        """Write a policy's new state; requires the generation ID that was read."""
        written = replace(policy, generation_id=new_uuid(self.entropy), modified_at=self.clock.now())
        changes.run(
            store.UPDATE,
            expect=1,
            otherwise=ChangedMeanwhileError(what="The policy"),
            key_name=policy.name,
            key_generation_id=policy.generation_id,
            **store.POLICIES.row(written),
        )
        changes.audit(actor, "awsiot.policy_change", policy.name, default_version=policy.default_version)
        await self.database.commit(changes.event(PolicyChanged(policy.name)))


def attaching(name: str, target: str, *, is_new: bool, is_wide: bool, actor: str) -> Changes:
    """Return the writes that attach a policy, conditional on target, policy, and quota.

    `is_wide` marks a policy that grants more than access to the connecting device.
    """
    changes = Changes().run(store.POLICY_IS_THERE, expect=1, key_name=name)
    most = MAX_ATTACHED + (not is_new)
    if (group := group_of(target)) is None:
        changes.run(store.CERTIFICATE_IS_THERE, expect=1, key_id=target)
        changes.run(store.MAY_HAVE_MORE, expect=1, key_id=target, most=most)
    else:
        changes.run(registry_store.GROUP_IS_THERE, expect=1, key_name=group)
        changes.run(registry_store.GROUP_MAY_HAVE_MORE, expect=1, key_name=group, most=most)
    changes.run(store.ATTACH, expect=1 if is_new else 0, policy=name, target=target)
    changes.audit(actor, "awsiot.policy_attach", name, **_named(target), **({"wide": True} if is_wide else {}))
    return changes.event(_changed(target))


def _named(target: str) -> dict[str, str]:
    group = group_of(target)
    return {"certificate_id": target} if group is None else {"thing_group": group}


def _changed(target: str) -> Event:
    group = group_of(target)
    return GrantsChanged(target) if group is None else ThingGroupChanged(group)


def _unknown(name: str, version: int | None = None) -> UnknownPolicyError:
    return UnknownPolicyError(policy=name[:128], version="default" if version is None else version)
