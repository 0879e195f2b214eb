"""How people sign in, as values: passwords, links to other providers, sessions, and commands that ask to be let in."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Index, bindparam

from birthmark.store import insert
from birthmark.store.crud_statements import change, find, page, present, remove
from birthmark.store.row_mapping import RowMapper


class Browser(NamedTuple):
    """Where somebody signs in: an address, and what the browser says it is."""

    address: str
    agent: str
    machine_user: int | None = None
    """Whose program it is, where it is known: a user of this machine, who came over loopback."""


@dataclass(frozen=True, slots=True)
class Password:
    """A user's password, by its digest."""

    user: str
    hash: str = field(repr=False)
    let_in_by: str
    """Who let that person in by it: whoever invited, or set it."""
    changed_at: datetime
    addresses: tuple[str, ...] = ()
    """From where somebody signed in by it, the latest first: guesses of others keep nobody out there."""


@dataclass(frozen=True, slots=True)
class OidcLink:
    """A user as another provider knows that one."""

    issuer: str
    subject: str
    user: str
    provider: str
    let_in_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """A browser that somebody signed in at."""

    id: str
    user: str
    digest: str = field(repr=False)
    how: str
    """`password`, `invitation`, or `oidc:NAME`."""
    address: str
    agent: str
    let_in_by: str
    created_at: datetime
    used_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class PendingDeviceLogin:
    """A command of another machine that waits for a person at a browser to let it in."""

    digest: str = field(repr=False)
    code: str
    """What that person types."""
    label: str
    address: str
    ends_at: datetime
    interval_s: int
    asked_at: datetime
    """When it asked last."""
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
"""Where it is what it was when it was checked."""

LINKS = RowMapper(OidcLink, user="user_name")
links = LINKS.table("people_links", "issuer", "subject")
Index("people_links_user", links.c.user_name)
LINK = find(links)
IS_LINKED = present(links)
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
"""What a user's sign-in at browsers is, and what was agreed to there and not fetched yet, by `user_name`."""
REMOVE_OF = (REMOVE_PASSWORD, REMOVE_LINKS, REMOVE_SESSIONS, REMOVE_ASKING)
"""All that is a user's, by `user_name`."""
