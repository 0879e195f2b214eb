"""Policies, their versions, and the certificates they are attached to."""

from sqlalchemy import bindparam, delete, func, or_, select, update

from birthmark.awsiot.model import NamedPolicy, PolicyName, PolicyVersion
from birthmark.awsiot.store.tables import policies, policy_targets, policy_versions
from birthmark.store import from_micros, insert, statement
from birthmark.store.database import Row

ADD = insert(policies)
GET = statement(select(policies).where(policies.c.name == bindparam("name")))
LIST = statement(
    select(policies).where(policies.c.name > bindparam("after")).order_by(policies.c.name).limit(bindparam("limit"))
)
LIST_DOWN = statement(
    select(policies)
    .where(or_(bindparam("after") == "", policies.c.name < bindparam("after")))
    .order_by(policies.c.name.desc())
    .limit(bindparam("limit"))
)
UPDATE = statement(
    update(policies)
    .where(policies.c.name == bindparam("key_name"), policies.c.generation_id == bindparam("key_generation_id"))
    .values({name: bindparam(name) for name in ("default_version", "last_version", "generation_id", "modified_at")})
)
DELETE = statement(delete(policies).where(policies.c.name == bindparam("name")))

ADD_VERSION = insert(policy_versions)
GET_VERSION = statement(
    select(policy_versions).where(
        policy_versions.c.policy == bindparam("policy"), policy_versions.c.version == bindparam("version")
    )
)
VERSIONS = statement(
    select(policy_versions)
    .where(policy_versions.c.policy == bindparam("policy"))
    .order_by(policy_versions.c.version.desc())
    .limit(100)
)
DELETE_VERSION = statement(
    delete(policy_versions).where(
        policy_versions.c.policy == bindparam("policy"), policy_versions.c.version == bindparam("version")
    )
)
DELETE_VERSIONS = statement(delete(policy_versions).where(policy_versions.c.policy == bindparam("policy")))

ATTACH = insert(policy_targets, ignore_existing=True)
DETACH = statement(
    delete(policy_targets).where(
        policy_targets.c.policy == bindparam("policy"), policy_targets.c.certificate_id == bindparam("certificate_id")
    )
)
DETACH_ALL = statement(delete(policy_targets).where(policy_targets.c.certificate_id == bindparam("certificate_id")))
COUNT_OF = statement(
    select(func.count().label("total")).where(policy_targets.c.certificate_id == bindparam("certificate_id"))
)
POLICIES_OF = statement(
    select(policy_targets.c.policy)
    .where(policy_targets.c.certificate_id == bindparam("certificate_id"), policy_targets.c.policy > bindparam("after"))
    .order_by(policy_targets.c.policy)
    .limit(bindparam("limit"))
)
TARGETS_OF = statement(
    select(policy_targets.c.certificate_id)
    .where(policy_targets.c.policy == bindparam("policy"), policy_targets.c.certificate_id > bindparam("after"))
    .order_by(policy_targets.c.certificate_id)
    .limit(bindparam("limit"))
)
POLICIES_BETWEEN = statement(
    select(policy_targets.c.certificate_id, policy_targets.c.policy)
    .where(policy_targets.c.certificate_id.between(bindparam("first"), bindparam("last")))
    .order_by(policy_targets.c.certificate_id, policy_targets.c.policy)
    .limit(100_000)
)
DOCUMENTS_OF = statement(
    select(policies.c.name, policy_versions.c.document)
    .join(policies, policies.c.name == policy_targets.c.policy)
    .join(
        policy_versions,
        (policy_versions.c.policy == policies.c.name) & (policy_versions.c.version == policies.c.default_version),
    )
    .where(policy_targets.c.certificate_id == bindparam("certificate_id"))
    .order_by(policies.c.name)
    .limit(100)
)


def policy_of(row: Row) -> NamedPolicy:
    """Return the policy of a row."""
    return NamedPolicy(
        PolicyName(row["name"]),
        row["default_version"],
        row["last_version"],
        row["generation_id"],
        from_micros(row["created_at"]),
        from_micros(row["modified_at"]),
    )


def version_of(row: Row) -> PolicyVersion:
    """Return the version of a row."""
    return PolicyVersion(PolicyName(row["policy"]), row["version"], row["document"], from_micros(row["created_at"]))
