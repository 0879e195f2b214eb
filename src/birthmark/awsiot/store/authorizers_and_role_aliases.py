"""Custom authorizers, the default authorizer, role aliases, and the secret that signs session tokens."""

from sqlalchemy import Table, and_, exists

from birthmark.awsiot.model import Authorizer, RoleAlias
from birthmark.store import insert, metadata
from birthmark.store.plain_and_encrypted_column_types import text
from birthmark.store.row_mapper import RowMapper
from birthmark.store.table_statements import change, find, guard_unchanged, page, remove

AUTHORIZERS = RowMapper(Authorizer, is_active="active")
authorizers = AUTHORIZERS.table("aws_authorizers", "name")
ADD_AUTHORIZER = insert(authorizers, ignore_existing=True)
GET_AUTHORIZER = find(authorizers)
LIST_AUTHORIZERS, LIST_AUTHORIZERS_DOWN = page(authorizers, "name"), page(authorizers, "name", descending=True)
OF_STATE = page(authorizers, "name", "active")
OF_STATE_DOWN = page(authorizers, "name", "active", descending=True)
_STATE = ("function_arn", "token_key_name", "signing_keys", "active", "caches_http", "modified_at", "version")
UPDATE_AUTHORIZER = change(authorizers, _STATE, "name", "version")

SWITCH_AUTHORIZER = change(authorizers, ("active",), "name")

defaults = Table("aws_defaults", metadata, text("kind", key=True), text("name"))
"""Defaults that apply if a request names no resource."""
AUTHORIZER = "authorizer"
GET_DEFAULT = find(defaults)
ADD_DEFAULT = insert(defaults, ignore_existing=True)
SET_DEFAULT = change(defaults, ("name",), "kind")
CLEAR_DEFAULT = remove(defaults)
AUTHORIZER_IS_THERE = guard_unchanged(authorizers, "name")
_IS_DEFAULT = exists().where(and_(defaults.c.kind == AUTHORIZER, defaults.c.name == authorizers.c.name))
DELETE_AUTHORIZER = remove(authorizers, "name", "version", authorizers.c.active == 0, ~_IS_DEFAULT)

ALIASES = RowMapper(RoleAlias)
role_aliases = ALIASES.table("aws_role_aliases", "name")
ADD_ALIAS = insert(role_aliases, ignore_existing=True)
GET_ALIAS = find(role_aliases)
LIST_ALIASES, LIST_ALIASES_DOWN = page(role_aliases, "name"), page(role_aliases, "name", descending=True)
UPDATE_ALIAS = change(role_aliases, ("role_arn", "duration_s", "modified_at", "version"), "name", "version")
DELETE_ALIAS = remove(role_aliases)

session_secrets = Table("aws_session_secrets", metadata, text("id", key=True), text("secret", sealed=True))
ADD_SESSION_SECRET = insert(session_secrets, ignore_existing=True)
SESSION_SECRET = find(session_secrets)
AUTHORIZER_IS_THERE = guard_unchanged(authorizers, "name")
ALIAS_IS_THERE = guard_unchanged(role_aliases, "name")
