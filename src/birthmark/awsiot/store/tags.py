"""Tags of all taggable resources: one row per resource, by the kind and name in its ARN."""

from sqlalchemy import Table

from birthmark.store import insert, metadata, upsert
from birthmark.store.plain_and_encrypted_column_types import number, text
from birthmark.store.table_statements import change, find, remove

tags = Table(
    "aws_tags", metadata, *(text(name, key=True) for name in ("kind", "name")), text("tags"), number("revision")
)
GET = find(tags)
PUT = upsert(tags)
ADD = insert(tags, ignore_existing=True)
CHANGE = change(tags, ("tags", "revision"), "kind", "name", "revision")
DROP = remove(tags)
