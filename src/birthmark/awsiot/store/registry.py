"""Things, thing types, thing groups, and the certificates attached to things."""

from sqlalchemy import (
    JSON,
    Executable,
    Index,
    Integer,
    Table,
    Text,
    and_,
    bindparam,
    cast,
    exists,
    func,
    literal,
    or_,
    select,
)

from birthmark.awsiot.model import CertificateStatus, PrincipalType, Thing, ThingGroup, ThingType
from birthmark.awsiot.store.certificates_and_access_keys import certificates
from birthmark.awsiot.store.policies import policies, policy_targets, policy_versions
from birthmark.store import Statement, insert, metadata, statement
from birthmark.store.compiled_statements import Engine
from birthmark.store.plain_and_encrypted_column_types import number, text
from birthmark.store.row_mapper import RowMapper
from birthmark.store.table_statements import change, find, guard_locked, guard_unchanged, is_in_list, page, remove

settings = Table(
    "aws_settings",
    metadata,
    text("name", key=True),
    text("value"),
    *(number(name) for name in ("revision", "at", "made_at")),
)
GET = find(settings)
CHANGE = change(settings, ("value", "revision", "at", "made_at"), "name", "revision")
IS_SO = guard_locked(settings, "name", "revision")
"""Requires a setting to be unchanged; many commits may share this guard, and a writer waits for them."""


FIGURE, PLACE = "things", "aws"
THINGS = RowMapper(Thing)
things = THINGS.table("aws_things", "name")
ADD_THING = insert(things, ignore_existing=True)
GET_THING = find(things)
LIST_THINGS = page(things, "name")
NAMES_OF_THINGS = page(things, "name", of=("name",))
THINGS_NAMED = find(things, is_in_list(things.c.name), of=("name",))
THINGS_WITH_NAMES = find(things, is_in_list(things.c.name))


def _fitting(engine: Engine) -> Executable:
    """Return a SELECT of things by type and attribute: any value, an exact value, or a value prefix."""
    if engine == "sqlite":
        value = func.json_extract(things.c.attributes, bindparam("path"))
    else:
        value = func.json_extract_path_text(cast(things.c.attributes, JSON), bindparam("attribute", type_=Text))
    match = bindparam("match", type_=Text)
    wanted = bindparam("value", type_=Text)
    begins = func.substr(value, 1, func.length(wanted)) == wanted
    return (
        select(things)
        .where(
            things.c.name > bindparam("after"),
            or_(bindparam("type_name") == "", things.c.type_name == bindparam("type_name")),
            or_(
                match == "",
                and_(match == "any", value.is_not(None)),
                and_(match == "equal", value == wanted),
                and_(match == "prefix", begins),
            ),
        )
        .order_by(things.c.name)
        .limit(bindparam("limit"))
    )


FITTING_THINGS = Statement(_fitting)
REPLACE_THING = change(things, ("type_name", "attributes", "billing_group", "version"), "name", "version")
ONE_OF_TYPE = find(things, "type_name", of=("name",), limit=1)

TYPES = RowMapper(ThingType)
thing_types = TYPES.table("aws_thing_types", "name")
ADD_TYPE = insert(thing_types, ignore_existing=True)
GET_TYPE = find(thing_types)
LIST_TYPES = page(thing_types, "name")
REPLACE_TYPE = change(thing_types, ("properties",), "name", "properties", "type_id")
DEPRECATE_TYPE = change(thing_types, ("deprecated_at",), "name")
TYPE_IS_USABLE = guard_unchanged(thing_types, "name", thing_types.c.deprecated_at.is_(None))
TYPE_IS_THERE = guard_unchanged(thing_types, "name")
DELETE_TYPE = remove(thing_types, "name", "deprecated_at", ~exists().where(things.c.type_name == thing_types.c.name))

GROUPS = RowMapper(ThingGroup)
thing_groups = GROUPS.table("aws_thing_groups", "name")
members = Table(
    "aws_thing_group_members", metadata, text("thing_group", key=True), text("thing", key=True), number("joined_at")
)
Index("aws_thing_group_members_thing", members.c.thing, members.c.thing_group)
Index("aws_thing_groups_parent", thing_groups.c.parent, thing_groups.c.name)
lines = Table(
    "aws_thing_group_lines", metadata, text("thing_group", key=True), text("ancestor", key=True), number("distance")
)
"""Each group with itself and every ancestor; a group never gets a new parent."""
Index("aws_thing_group_lines_below", lines.c.ancestor, lines.c.thing_group)
_BEGINS = func.substr(thing_groups.c.name, 1, func.length(bindparam("prefix", type_=Text)))
ADD_GROUP = insert(thing_groups, ignore_existing=True)
GET_GROUP = find(thing_groups)
GROUPS_NAMED = find(thing_groups, is_in_list(thing_groups.c.name))
_FITS = bindparam("prefix", type_=Text) == _BEGINS
LIST_GROUPS = page(thing_groups, "name", _FITS)
LIST_UPPERMOST = page(thing_groups, "name", _FITS, thing_groups.c.parent.is_(None))
LIST_CHILDREN = page(thing_groups, "name", _FITS, "parent")
LIST_BELOW = statement(
    select(thing_groups)
    .join(lines, lines.c.thing_group == thing_groups.c.name)
    .where(lines.c.ancestor == bindparam("parent"), lines.c.distance > 0, _FITS)
    .where(thing_groups.c.name > bindparam("after"))
    .order_by(thing_groups.c.name)
    .limit(bindparam("limit"))
)
ONE_CHILD = find(thing_groups, "parent", of=("name",), limit=1)
_DYNAMIC = select(func.count()).where(thing_groups.c.query.is_not(None)).scalar_subquery()
DYNAMIC_TURN = guard_unchanged(settings, "name")
"""Locks the dynamic group setting first, so that concurrent creations count each other."""
MAY_BE_DYNAMIC = guard_unchanged(settings, "name", bindparam("most", type_=Integer) > _DYNAMIC)
DYNAMIC_GROUPS = page(thing_groups, "name", thing_groups.c.query.is_not(None))
ADD_LINE = insert(lines)
LINE_OF = find(lines, "thing_group", order=lines.c.distance.desc(), limit=100)
DROP_LINES = remove(lines, "thing_group")
REPLACE_GROUP = change(thing_groups, ("properties", "version", "query"), "name", "version")
_below = thing_groups.alias()
DELETE_GROUP = remove(thing_groups, "name", "version", ~exists().where(_below.c.parent == thing_groups.c.name))
GROUP_IS_SAME = guard_unchanged(thing_groups, "name", "group_id")
GROUP_IS_THERE = guard_unchanged(thing_groups, "name")
GROUP_IS_AT = guard_unchanged(thing_groups, "name", "version")
EMPTY_GROUP = remove(members, "thing_group")
FORGET_MEMBER = remove(members, "thing")
ADD_MEMBER = insert(members, ignore_existing=True)
REMOVE_MEMBER = remove(members)
GROUPS_OF = page(members, "thing_group", "thing", of=("thing_group",))
THINGS_IN = page(members, "thing", "thing_group", of=("thing",))
MEMBER_IS_THERE = guard_unchanged(members)
MEMBERSHIPS_OF = find(members, is_in_list(members.c.thing))
THINGS_BELOW = statement(
    select(members.c.thing)
    .distinct()
    .join(lines, lines.c.thing_group == members.c.thing_group)
    .where(lines.c.ancestor == bindparam("thing_group"), members.c.thing > bindparam("after"))
    .order_by(members.c.thing)
    .limit(bindparam("limit"))
)
_IS_IN = select(func.count()).where(members.c.thing == things.c.name).scalar_subquery()
MAY_JOIN = guard_unchanged(things, "name", bindparam("most", type_=Integer) >= _IS_IN)
_AS_TARGET = literal("thinggroup/", Text)
_HAS = select(func.count()).where(policy_targets.c.target == _AS_TARGET + thing_groups.c.name).scalar_subquery()
GROUP_MAY_HAVE_MORE = guard_unchanged(thing_groups, "name", bindparam("most", type_=Integer) > _HAS)
_DEFAULT = (policy_versions.c.policy == policies.c.name) & (policy_versions.c.version == policies.c.default_version)
_OF_LINE = policy_targets.c.target == _AS_TARGET + lines.c.ancestor
DOCUMENTS_ABOVE = statement(
    select(policy_versions.c.document)
    .select_from(lines)
    .join(policy_targets, _OF_LINE)
    .join(policies, policies.c.name == policy_targets.c.policy)
    .join(policy_versions, _DEFAULT)
    .where(lines.c.thing_group == bindparam("thing_group"))
    .limit(2000)
)
"""SELECT of the default documents of the policies of a group and its ancestors."""
# A thing's groups and their ancestors, each with its policies, which extend what its connections may do.
GROUPS_AND_DOCUMENTS_OF = statement(
    select(lines.c.ancestor, policies.c.name, policy_versions.c.document)
    .select_from(members)
    .join(lines, lines.c.thing_group == members.c.thing_group)
    .outerjoin(policy_targets, _OF_LINE)
    .outerjoin(policies, policies.c.name == policy_targets.c.policy)
    .outerjoin(policy_versions, _DEFAULT)
    .where(members.c.thing == bindparam("thing"))
    .order_by(lines.c.ancestor, policies.c.name)
    .limit(2000)
)

thing_principals = Table(
    "aws_thing_principals", metadata, text("thing", key=True), text("certificate_id", key=True), text("kind")
)
Index("aws_thing_principals_certificate", thing_principals.c.certificate_id, thing_principals.c.thing)
DELETE_THING = remove(things, "name", "version", ~exists().where(thing_principals.c.thing == things.c.name))
THING_IS_THERE = guard_unchanged(things, "name")
THING_IS_AT = guard_unchanged(things, "name", "version")
_ALONE = PrincipalType.EXCLUSIVE.value
_IN_THE_WAY = exists().where(
    thing_principals.c.certificate_id == certificates.c.id,
    thing_principals.c.thing != bindparam("thing"),
    or_(thing_principals.c.kind == _ALONE, bindparam("kind", type_=Text) == _ALONE),
)
MAY_BE_ATTACHED = guard_unchanged(certificates, "id", ~_IN_THE_WAY)
ATTACH = insert(thing_principals, ignore_existing=True)
DETACH = remove(thing_principals)
ATTACHMENT = find(thing_principals)
PRINCIPALS_OF = page(thing_principals, "certificate_id", "thing", of=("certificate_id", "kind"))
THINGS_OF = page(thing_principals, "thing", "certificate_id", of=("thing", "kind"))
EXCLUSIVE_THING_OF = find(
    thing_principals,
    "certificate_id",
    thing_principals.c.kind == _ALONE,
    of=("thing",),
    limit=1,
)


_above = select(_AS_TARGET + lines.c.ancestor).where(lines.c.thing_group == bindparam("thing_group", type_=Text))
_around = (
    select(_AS_TARGET + lines.c.ancestor)
    .select_from(thing_principals)
    .join(members, members.c.thing == thing_principals.c.thing)
    .join(lines, lines.c.thing_group == members.c.thing_group)
    .where(thing_principals.c.certificate_id == bindparam("target", type_=Text))
)
# Policies attached to a target itself, to the ancestors of a group, or to the groups of a certificate's things.
POLICIES_REACHING = statement(
    select(policy_targets.c.policy)
    .distinct()
    .where(
        policy_targets.c.policy > bindparam("after"),
        or_(
            policy_targets.c.target == bindparam("target", type_=Text),
            policy_targets.c.target.in_(_above),
            policy_targets.c.target.in_(_around),
        ),
    )
    .order_by(policy_targets.c.policy)
    .limit(bindparam("limit"))
)


def between(table: Table, key: str, value: str) -> Statement:
    """Return a SELECT of all pairs whose key is within a page, from its `first` to its `last`."""
    one, other = table.c[key], table.c[value]
    return statement(
        select(one, other).where(one.between(bindparam("first"), bindparam("last"))).order_by(one, other).limit(100_000)
    )


CERTIFICATES_BETWEEN = between(thing_principals, "thing", "certificate_id")
THINGS_BETWEEN = between(thing_principals, "certificate_id", "thing")
POLICIES_BETWEEN = between(policy_targets, "target", "policy")
# A certificate with attachments is never deleted; a forced deletion detaches its policies first.
DELETE_CERTIFICATE = remove(
    certificates,
    "id",
    certificates.c.status != CertificateStatus.ACTIVE.value,
    ~exists().where(thing_principals.c.certificate_id == certificates.c.id),
    ~exists().where(policy_targets.c.target == certificates.c.id),
)
