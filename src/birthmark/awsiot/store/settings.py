"""What the account was told once: one row each, made with the schema, so that a commit can count on it."""

from sqlalchemy import Table

from birthmark.store import metadata
from birthmark.store.columns import number, text
from birthmark.store.keyed import change, find, held

settings = Table(
    "aws_settings",
    metadata,
    text("name", key=True),
    text("value"),
    *(number(name) for name in ("revision", "at", "made_at")),
)
GET = find(settings)
CHANGE = change(settings, ("value", "revision", "at", "made_at"), "name", "revision")
IS_SO = held(settings, "name", "revision")
"""Many commits may count on the same at once; who changes it waits for them."""
