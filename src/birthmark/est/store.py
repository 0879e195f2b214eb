"""EST tables: users with password digests, manufacturer CAs, registration authorities, pending requests."""

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    Table,
    and_,
    bindparam,
    case,
    func,
    null,
    or_,
    select,
    update,
)

from birthmark.est.model import BootstrapCa, EstUser, RegistrationAuthority, WaitingRequest
from birthmark.store import insert, metadata, statement, upsert
from birthmark.store.plain_and_encrypted_column_types import blob, number
from birthmark.store.row_mapper import RowMapper
from birthmark.store.table_statements import find, guard_exists, page, remove

MAX_WAITING_PER_NAME = 8


USER_RECORDS = RowMapper(EstUser)
users = USER_RECORDS.table("est_users", "name", more=[blob("nonce", optional=True)])
ADD_USER = insert(users)
USER = find(users)
USERS_PAGE = page(users, "name")
USERS_OF_DEVICE_PAGE = page(users, "name", func.lower(users.c.device_id) == bindparam("folded"))
"""Users of a device in any spelling; callers filter names whose non-ASCII letters the database folds differently."""
USERS_FOR_ALL_PAGE = page(users, "name", users.c.device_id.is_(None))
REMOVE_USER = remove(users)
USER_AS_READ = guard_exists(users, "name", "password_hash")
USE_TOKEN = statement(
    update(users)
    .where(
        users.c.name == bindparam("key_name"),
        or_(users.c.used_by.is_(None), users.c.used_by == bindparam("used_by")),
    )
    .values(used_by=bindparam("used_by"))
)
PURGE_TOKENS = remove(users, users.c.is_one_time == 1, users.c.expires_at < bindparam("before"))

BOOTSTRAP_RECORDS = RowMapper(BootstrapCa, certificate="der")
bootstrap_cas = Table(
    "est_bootstrap_cas",
    metadata,
    blob("thumbprint", key=True),
    blob("der"),
    Column("any_name", Integer, nullable=False),  # as in the first migration
    number("added_at"),
)
ADD_BOOTSTRAP_CA = upsert(bootstrap_cas)
BOOTSTRAP_CA = find(bootstrap_cas)
BOOTSTRAP_CAS_PAGE = page(bootstrap_cas, "thumbprint")
REMOVE_BOOTSTRAP_CA = remove(bootstrap_cas)
BOOTSTRAP_CA_AS_READ = guard_exists(bootstrap_cas, "thumbprint", "any_name")

AUTHORITY_RECORDS = RowMapper(RegistrationAuthority, certificate="der")
authorities = AUTHORITY_RECORDS.table("est_authorities", more=[blob("thumbprint", key=True)])
ADD_AUTHORITY = upsert(authorities)
AUTHORITY = find(authorities)
AUTHORITIES_PAGE = page(authorities, "thumbprint")
REMOVE_AUTHORITY = remove(authorities)
AUTHORITY_AS_READ = guard_exists(authorities, "thumbprint", "names")

WAITING_RECORDS = RowMapper(WaitingRequest)
waiting = WAITING_RECORDS.table("est_requests", "id")
Index("est_requests_name", waiting.c.name)
Index("est_requests_asked_at", waiting.c.asked_at)
Index("est_requests_decided_at", waiting.c.decided_at, waiting.c.actor)
Index("est_requests_fetched_at", waiting.c.fetched_at)
ADD_WAITING = insert(waiting, ignore_existing=True)
WAITING = find(waiting)
_IS_OPEN, _IS_UNDECIDED = waiting.c.fetched_at.is_(None), waiting.c.decided_at.is_(None)
WAITING_PAGE = page(waiting, "id", _IS_OPEN)
WAITING_OF_NAME_PAGE = page(waiting, "id", "name")
_IS_ASKER = case((waiting.c.actor == bindparam("actor"), 1), else_=0)
COUNT_WAITING = statement(
    select(func.count().label("count"), func.coalesce(func.sum(_IS_ASKER), 0).label("of_actor"))
    .select_from(waiting)
    .where(_IS_UNDECIDED)
)
"""Number of undecided requests: in total, and of one caller."""
DECIDE = statement(
    update(waiting)
    .where(waiting.c.id == bindparam("key_id"))
    .values(decided_at=bindparam("decided_at"), is_approved=bindparam("is_approved"), fetched_at=null())
)
FETCH_APPROVED = statement(
    update(waiting)
    .where(waiting.c.id == bindparam("key_id"), waiting.c.is_approved == 1)
    .values(fetched_at=func.coalesce(waiting.c.fetched_at, bindparam("at", type_=BigInteger)))
)
DROP_DECIDED = remove(waiting, "id", "decided_at")
"""Deletes a decided request if its decision is unchanged; a newer decision remains."""
ASKED_AGAIN = statement(
    update(waiting)
    .where(waiting.c.id == bindparam("key_id"), _IS_UNDECIDED)
    .values(asked_at=bindparam("at", type_=BigInteger))
)
PURGE_WAITING = remove(
    waiting,
    or_(
        and_(_IS_UNDECIDED, waiting.c.asked_at < bindparam("before")),
        waiting.c.decided_at < bindparam("before"),  # whatever its request time: a client that waits long may have it
        waiting.c.fetched_at < bindparam("fetched_before"),
    ),
)
