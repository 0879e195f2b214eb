"""The tables of how people sign in, and their statements."""

from sqlalchemy import Index, bindparam

from birthmark.people.sign_in_model import Asking, Link, Password, Session
from birthmark.store import insert
from birthmark.store.keyed import change, find, page, present, remove
from birthmark.store.records import Records

PASSWORDS = Records(Password, user="user_name")
passwords = PASSWORDS.table("people_passwords", "user_name", sealed=["hash"])
PASSWORD = find(passwords)
ADD_PASSWORD = insert(passwords, ignore_existing=True)
REMOVE_PASSWORD = remove(passwords)
DROP_PASSWORD = remove(passwords, "user_name", "hash")
USE_PASSWORD = change(passwords, ("hash", "addresses"), "user_name", "hash")
"""Where it is what it was when it was checked."""

LINKS = Records(Link, user="user_name")
links = LINKS.table("people_links", "issuer", "subject")
Index("people_links_user", links.c.user_name)
LINK = find(links)
IS_LINKED = present(links)
ADD_LINK = insert(links, ignore_existing=True)
LINKS_OF = find(links, "user_name", order=links.c.created_at)
REMOVE_LINK = remove(links, "user_name", "provider")
REMOVE_LINKS = remove(links, "user_name")

SESSIONS = Records(Session, user="user_name")
sessions = SESSIONS.table("people_sessions", "id", sealed=["digest"])
Index("people_sessions_user", sessions.c.user_name)
ADD_SESSION = insert(sessions)
REMOVE_SESSION = remove(sessions)
REMOVE_SESSIONS = remove(sessions, "user_name")
PURGE_SESSIONS = remove(sessions, sessions.c.ends_at < bindparam("before"))
SESSIONS_PAGE = page(sessions, "id")
TOUCH_SESSION = change(sessions, ("used_at",), "id", sessions.c.used_at < bindparam("used_at"))

ASKING = Records(Asking, user="user_name")
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
