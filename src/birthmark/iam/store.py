"""IAM tables and statements."""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Index, Table, bindparam, case, literal_column, or_

from birthmark.iam.model import AccessToken, Invitation, RoleAssignment, User
from birthmark.store import Statement, insert, metadata
from birthmark.store.compiled_statements import Engine
from birthmark.store.plain_and_encrypted_column_types import number, text
from birthmark.store.row_mapper import RowMapper
from birthmark.store.table_statements import find, guard_exists, insert_into, page, remove

USERS = RowMapper(User)
users = USERS.table("people_users", "name")
ADD_USER = insert(users, ignore_existing=True)
REMOVE_USER = remove(users)
USERS_PAGE = page(users, "name")
IS_THERE = guard_exists(users)

GRANTS = RowMapper(RoleAssignment, user="user_name")
grants = GRANTS.table("people_grants", "user_name", "role", "place")
ADD_GRANT = insert(grants, ignore_existing=True)
REMOVE_GRANT = remove(grants)
REMOVE_GRANTS = remove(grants, "user_name")
REMOVE_GRANTS_AT = remove(grants, "place")
ALL_GRANTS = find(grants, grants.c.user_name != "", order=grants.c.user_name)

TOKENS = RowMapper(AccessToken, user="user_name")
tokens = TOKENS.table("people_tokens", "id", sealed=["digest"])
Index("people_tokens_user", tokens.c.user_name)
ADD_TOKEN = insert(tokens)
REMOVE_TOKEN = remove(tokens)
REMOVE_TOKENS = remove(tokens, "user_name")
REMOVE_TOKENS_AT = remove(tokens, "place")
PURGE_TOKENS = remove(tokens, tokens.c.ends_at <= bindparam("before"))
TOKENS_PAGE = page(tokens, "id")

INVITATIONS = RowMapper(Invitation, user="user_name")
invitations = INVITATIONS.table("people_invitations", "digest")
Index("people_invitations_user", invitations.c.user_name)
ADD_INVITATION = insert(invitations)
INVITATION = find(invitations)
REDEEM = remove(invitations, "digest", invitations.c.ends_at > bindparam("now"))
REMOVE_INVITATIONS = remove(invitations, "user_name")

allowances = Table("people_allowances", metadata, text("user_name", key=True), number("remaining"), number("until"))
"""Remaining device removals per user, and their end; a user without a row has removed none."""


def _put(engine: Engine, more: ColumnElement[int], condition: ColumnElement[bool] | None) -> Any:
    """Return an upsert that starts a day's quota, or changes the remaining quota of the current day by `more`."""
    clause = insert_into(engine, allowances).values({one.name: bindparam(one.name) for one in allowances.columns})
    begun = {name: case((_IS_OVER, clause.excluded[name]), else_=allowances.c[name]) for name in ("remaining", "until")}
    begun["remaining"] = case((_IS_OVER, clause.excluded["remaining"]), else_=allowances.c.remaining + more)
    return clause.on_conflict_do_update(index_elements=[allowances.c.user_name], set_=begun, where=condition)


_IS_OVER = allowances.c.until <= bindparam("now", type_=BigInteger)
TAKE = Statement(lambda engine: _put(engine, literal_column("-1"), or_(_IS_OVER, allowances.c.remaining > 0)))
"""Count one removal; updates no row if the quota is used up. The first removal starts the day."""
ALLOW = Statement(lambda engine: _put(engine, bindparam("more", type_=BigInteger), None))
"""Add `more` removals to a user's remaining quota."""
ALLOWANCE = find(allowances)
PURGE_ALLOWANCES = remove(allowances, allowances.c.until <= bindparam("before"))
