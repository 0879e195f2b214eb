"""Shadows, and the versions of deleted shadows.

Every write of a row is conditional on its `revision`, because the version alone does not show a deletion.
"""

from typing import Any

from sqlalchemy import Table, Text, bindparam, func, select, tuple_

from birthmark.awsiot.model import Shadow
from birthmark.awsiot.wire.shadows import sections_body, sections_of
from birthmark.store import insert, metadata, partial_index, statement
from birthmark.store.database import Row
from birthmark.store.plain_and_encrypted_column_types import blob, number, text
from birthmark.store.table_statements import change, find, guard_unchanged, is_in_list, page, remove

shadows = Table(
    "aws_shadows",
    metadata,
    *(text(name, key=True) for name in ("thing", "name")),
    *(number(name) for name in ("version", "at", "revision")),
    number("deleted_at", optional=True),
    blob("body"),
)
_DELETED = shadows.c.deleted_at.is_not(None)
partial_index("aws_shadows_deleted_at", shadows.c.deleted_at, condition=_DELETED)

GET = find(shadows)
ADD = insert(shadows, ignore_existing=True)
CHANGE = change(shadows, ("version", "at", "revision", "deleted_at", "body"), "thing", "name", "revision")
NAMES = page(shadows, "name", "thing", shadows.c.deleted_at.is_(None), of=("name",))
COUNT = statement(
    select(func.count().label("total"), func.count(shadows.c.deleted_at).label("deleted")).where(
        shadows.c.thing == bindparam("thing"),
        shadows.c.name != "",
        shadows.c.deleted_at.is_(None) | (shadows.c.deleted_at > bindparam("since")),
    )
)
_AFTER = tuple_(bindparam("thing", type_=Text), bindparam("name", type_=Text))
ALL = statement(
    select(shadows)
    .where(tuple_(shadows.c.thing, shadows.c.name) > _AFTER)
    .order_by(shadows.c.thing, shadows.c.name)
    .limit(bindparam("limit"))
)
OF_THINGS = find(shadows, is_in_list(shadows.c.thing), shadows.c.deleted_at.is_(None))
IS_AT = guard_unchanged(shadows, "thing", "name", "revision")
FORGET = remove(shadows, shadows.c.deleted_at <= bindparam("before"))


def shadow_of(row: Row) -> Shadow:
    """Return the shadow of a row."""
    is_deleted = row["deleted_at"] is not None
    desired, reported = sections_of(row["body"])
    return Shadow(row["thing"], row["name"], desired, reported, row["version"], row["at"], is_deleted)


def shadow_row(shadow: Shadow, revision: int) -> dict[str, Any]:
    """Return the columns of a shadow except its names."""
    return {
        "version": shadow.version,
        "at": shadow.at,
        "revision": revision,
        "deleted_at": shadow.at if shadow.is_deleted else None,
        "body": sections_body(shadow.desired, shadow.reported),
    }
