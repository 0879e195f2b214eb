"""Policies, their versions and their attachments.

A target is a certificate ID, or `thinggroup/` and the name of a thing group.
"""

from sqlalchemy import Index, Integer, Table, bindparam, exists, func, select

from birthmark.awsiot.model import NamedPolicy, PolicyVersion
from birthmark.awsiot.store.certificates_and_access_keys import certificates
from birthmark.store import insert, metadata, statement
from birthmark.store.plain_and_encrypted_column_types import text
from birthmark.store.row_mapper import RowMapper
from birthmark.store.table_statements import change, find, guard_unchanged, is_in_list, page, remove

POLICIES = RowMapper(NamedPolicy)
policies = POLICIES.table("aws_policies", "name")
ADD = insert(policies, ignore_existing=True)
GET = find(policies)
LIST, LIST_DOWN = page(policies, "name"), page(policies, "name", descending=True)
UPDATE = change(policies, ("default_version", "last_version", "generation_id", "modified_at"), "name", "generation_id")

POLICY_VERSIONS = RowMapper(PolicyVersion)
policy_versions = POLICY_VERSIONS.table("aws_policy_versions", "policy", "version")
ADD_VERSION = insert(policy_versions)
GET_VERSION = find(policy_versions)
VERSIONS = find(policy_versions, "policy", order=policy_versions.c.version.desc(), limit=100)
DELETE_VERSION = remove(policy_versions)
DELETE_VERSIONS = remove(policy_versions, "policy")

policy_targets = Table("aws_policy_targets", metadata, text("policy", key=True), text("target", key=True))
Index("aws_policy_targets_target", policy_targets.c.target, policy_targets.c.policy)
DELETE = remove(policies, "name", "generation_id", ~exists().where(policy_targets.c.policy == policies.c.name))
DOCUMENTS_NAMED = statement(
    select(policies.c.name, policy_versions.c.document)
    .join(
        policy_versions,
        (policy_versions.c.policy == policies.c.name) & (policy_versions.c.version == policies.c.default_version),
    )
    .where(is_in_list(policies.c.name))
    .order_by(policies.c.name)
)
POLICY_IS_THERE = guard_unchanged(policies, "name")
CERTIFICATE_IS_THERE = guard_unchanged(certificates, "id")
"""Locks the certificate before a statement reads its dependent rows.

On PostgreSQL, a statement that had to wait sees these rows as they were before.
"""
_ATTACHED = select(func.count()).where(policy_targets.c.target == certificates.c.id).scalar_subquery()
MAY_HAVE_MORE = guard_unchanged(certificates, "id", bindparam("most", type_=Integer) > _ATTACHED)
ATTACH = insert(policy_targets, ignore_existing=True)
DETACH = remove(policy_targets)
DETACH_ALL = remove(policy_targets, "target")
POLICIES_OF = page(policy_targets, "policy", "target", of=("policy",))
TARGETS_OF = page(policy_targets, "target", "policy", of=("target",))
DOCUMENTS_OF_GROUPS = statement(
    select(policy_versions.c.document)
    .distinct()
    .join(
        policies,
        (policy_versions.c.policy == policies.c.name) & (policy_versions.c.version == policies.c.default_version),
    )
    .join(policy_targets, policies.c.name == policy_targets.c.policy)
    .where(policy_targets.c.target >= "thinggroup/", policy_targets.c.target < "thinggroup0")
    .limit(bindparam("limit"))
)
"""Documents of all policies attached to any thing group."""
DOCUMENTS_OF = statement(
    select(policies.c.name, policy_versions.c.document)
    .join(policies, policies.c.name == policy_targets.c.policy)
    .join(
        policy_versions,
        (policy_versions.c.policy == policies.c.name) & (policy_versions.c.version == policies.c.default_version),
    )
    .where(policy_targets.c.target == bindparam("target"))
    .order_by(policies.c.name)
    .limit(100)
)
