"""Sign-in records: passwords, OIDC links, sessions, and pending sign-ins of commands."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Index, bindparam

from birthmark.store import insert
from birthmark.store.row_mapper import RowMapper
from birthmark.store.table_statements import change, find, guard_exists, page, remove


class Browser(NamedTuple):
    """A browser at sign-in: its address and its user agent."""

    address: str
    agent: str
    machine_user: int | None = None
    """User of this machine that runs the browser, if known: over loopback only."""


@dataclass(frozen=True, slots=True)
class Password:
    """A user's password, by its digest."""

    user: str
    hash: str = field(repr=False)
    let_in_by: str
    """Actor who admitted the user with it: the inviter, or who set it."""
    changed_at: datetime
    addresses: tuple[str, ...] = ()
    """Addresses of successful sign-ins, latest first: guesses of others do not lock the user out there."""


@dataclass(frozen=True, slots=True)
class OidcLink:
    """A user's link to a subject at an OpenID provider."""

    issuer: str
    subject: str
    user: str
    provider: str
    let_in_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """A browser session of a user."""

    id: str
    user: str
    digest: str = field(repr=False)
    how: str
    """Sign-in method: `password`, `invitation`, or `oidc:NAME`."""
    address: str
    agent: str
    let_in_by: str
    created_at: datetime
    used_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class PendingDeviceLogin:
    """A command on another machine that waits for approval in a browser."""

    digest: str = field(repr=False)
    code: str
    """User code."""
    label: str
    address: str
    ends_at: datetime
    interval_s: int
    asked_at: datetime
    """Time of the last poll."""
    user: str | None = None
    let_in_by: str | None = None
    is_agreed: bool | None = None


PASSWORDS = RowMapper(Password, user="user_name")
passwords = PASSWORDS.table("people_passwords", "user_name", sealed=["hash"])
PASSWORD = find(passwords)
ADD_PASSWORD = insert(passwords, ignore_existing=True)
REMOVE_PASSWORD = remove(passwords)
DROP_PASSWORD = remove(passwords, "user_name", "hash")
USE_PASSWORD = change(passwords, ("hash", "addresses"), "user_name", "hash")
"""Update a password's row only if it is unchanged since the check."""

LINKS = RowMapper(OidcLink, user="user_name")
links = LINKS.table("people_links", "issuer", "subject")
Index("people_links_user", links.c.user_name)
LINK = find(links)
IS_LINKED = guard_exists(links)
ADD_LINK = insert(links, ignore_existing=True)
LINKS_OF = find(links, "user_name", order=links.c.created_at)
REMOVE_LINK = remove(links, "user_name", "provider")
REMOVE_LINKS = remove(links, "user_name")

SESSIONS = RowMapper(BrowserSession, user="user_name")
sessions = SESSIONS.table("people_sessions", "id", sealed=["digest"])
Index("people_sessions_user", sessions.c.user_name)
ADD_SESSION = insert(sessions)
REMOVE_SESSION = remove(sessions)
REMOVE_SESSIONS = remove(sessions, "user_name")
PURGE_SESSIONS = remove(sessions, sessions.c.ends_at < bindparam("before"))
SESSIONS_PAGE = page(sessions, "id")
TOUCH_SESSION = change(sessions, ("used_at",), "id", sessions.c.used_at < bindparam("used_at"))

ASKING = RowMapper(PendingDeviceLogin, user="user_name")
asking = ASKING.table("people_asking", "digest")
Index("people_asking_code", asking.c.code, unique=True)
ADD_ASKING = insert(asking, ignore_existing=True)
ASKING_BY_DIGEST = find(asking)
ASKING_BY_CODE = find(asking, "code")
ALL_ASKING = find(asking, asking.c.ends_at > bindparam("now"))
PURGE_ASKING = remove(asking, asking.c.ends_at <= bindparam("now"))
GIVE_UP_ASKING = remove(asking, "digest", asking.c.user_name.is_(None))
REMOVE_ASKING = remove(asking, "user_name")
DECIDE_ASKING = change(
    asking,
    ("user_name", "let_in_by", "is_agreed"),
    "digest",
    asking.c.user_name.is_(None),
    asking.c.ends_at > bindparam("now"),
)
SLOW_ASKING = change(asking, ("asked_at", "interval_s"), "digest", "asked_at")
TAKE_ASKING = remove(asking, "digest", "is_agreed", asking.c.ends_at > bindparam("now"))

SIGNED_IN = (REMOVE_SESSIONS, REMOVE_ASKING)
"""Statements that delete a user's sessions and approved but unfetched sign-ins, by `user_name`."""
REMOVE_OF = (REMOVE_PASSWORD, REMOVE_LINKS, REMOVE_SESSIONS, REMOVE_ASKING)
"""Statements that delete all sign-in data of a user, by `user_name`."""
