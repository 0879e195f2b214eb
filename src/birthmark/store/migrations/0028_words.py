"""Names of devices by the beginning of any of their words, as `birthmark.store.words` splits them."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

_ON_RECORD = """
SELECT 'hub/' || hub AS place, device_id AS name FROM hub_devices
UNION ALL SELECT 'aws', name FROM aws_things
UNION ALL SELECT 'dps:' || scope, id FROM dps_enrollments WHERE kind = 'individual'
UNION ALL SELECT 'server', name FROM ca_names WHERE name <> ''
"""
_FILL = """
INSERT INTO words (place, word, name)
WITH RECURSIVE starts(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM starts WHERE n < 300),
known AS ({on_record}),
split AS (
  SELECT place, name, n, row_number() OVER (PARTITION BY place, name ORDER BY n) AS k
  FROM known JOIN starts ON n <= length(name)
  WHERE n = 1 OR ({here} AND NOT {before})
)
SELECT DISTINCT place, {word}, name FROM split WHERE k <= 8
"""
_SQLITE = {
    "here": "(substr(name, n, 1) GLOB '[0-9a-zA-Z]' OR unicode(substr(name, n, 1)) > 127)",
    "before": "(substr(name, n - 1, 1) GLOB '[0-9a-zA-Z]' OR unicode(substr(name, n - 1, 1)) > 127)",
    "word": "substr(lower(name), n, 64)",
}
_POSTGRESQL = {
    "here": "(substr(name, n, 1) ~ '[0-9a-zA-Z]' OR ascii(substr(name, n, 1)) > 127)",
    "before": "(substr(name, n - 1, 1) ~ '[0-9a-zA-Z]' OR ascii(substr(name, n - 1, 1)) > 127)",
    "word": "substr(translate(name, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz'), n, 64)",
}


def upgrade() -> None:
    ordered = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "words",
        sa.Column("place", sa.Text(), nullable=False),
        *(sa.Column(name, ordered, nullable=False) for name in ("word", "name")),
        sa.PrimaryKeyConstraint("place", "word", "name"),
        sqlite_with_rowid=False,
    )
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    op.execute(_FILL.format(on_record=_ON_RECORD, **(_SQLITE if is_sqlite else _POSTGRESQL)))
