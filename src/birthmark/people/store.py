"""The tables of people, and their statements."""

from sqlalchemy import Index, bindparam

from birthmark.people.model import Grant, Invitation, Token, User
from birthmark.store import insert
from birthmark.store.keyed import find, page, present, remove
from birthmark.store.records import Records

USERS = Records(User)
users = USERS.table("people_users", "name")
ADD_USER = insert(users, ignore_existing=True)
REMOVE_USER = remove(users)
USERS_PAGE = page(users, "name")
IS_THERE = present(users)

GRANTS = Records(Grant, user="user_name")
grants = GRANTS.table("people_grants", "user_name", "role", "place")
ADD_GRANT = insert(grants, ignore_existing=True)
REMOVE_GRANT = remove(grants)
REMOVE_GRANTS = remove(grants, "user_name")
ALL_GRANTS = find(grants, grants.c.user_name != "", order=grants.c.user_name)

TOKENS = Records(Token, user="user_name")
tokens = TOKENS.table("people_tokens", "id", sealed=["digest"])
Index("people_tokens_user", tokens.c.user_name)
ADD_TOKEN = insert(tokens)
REMOVE_TOKEN = remove(tokens)
REMOVE_TOKENS = remove(tokens, "user_name")
PURGE_TOKENS = remove(tokens, tokens.c.ends_at < bindparam("before"))
TOKENS_PAGE = page(tokens, "id")

INVITATIONS = Records(Invitation, user="user_name")
invitations = INVITATIONS.table("people_invitations", "digest")
Index("people_invitations_user", invitations.c.user_name)
ADD_INVITATION = insert(invitations)
INVITATION = find(invitations)
REDEEM = remove(invitations, "digest", invitations.c.ends_at > bindparam("now"))
REMOVE_INVITATIONS = remove(invitations, "user_name")
