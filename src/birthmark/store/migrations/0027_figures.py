"""Figures: how many there are of something, by worker; those of what is there already are counted once, here."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0024"
branch_labels = None
depends_on = None

_HOUR = 3_600_000_000
_WEEK, _THURSDAY = 168 * _HOUR, 72 * _HOUR
_OF_WEEK = f"(not_after + {_THURSDAY}) / {_WEEK} * {_WEEK} - {_THURSDAY}"
_OF_HOUR = f"at / {_HOUR} * {_HOUR}"
_FOUND = """
SELECT 'devices', hub, CASE enabled WHEN 1 THEN 'enabled' ELSE 'disabled' END, 0, 'before', count(*)
FROM hub_devices GROUP BY 2, 3;
SELECT 'things', '', '', 0, 'before', count(*) FROM aws_things GROUP BY 2;
SELECT 'certificates', profile, CASE WHEN revoked_at IS NULL THEN 'valid' ELSE 'revoked' END, {week}, 'before', count(*)
FROM ca_certificates GROUP BY 2, 3, 4;
SELECT 'registrations', {scope}, '', {hour}, 'before', count(*) FROM audit WHERE action = 'dps.register' GROUP BY 2, 4;
SELECT 'refusals', '', code, {hour}, 'before', count(*) FROM refusals GROUP BY 3, 4
"""


def upgrade() -> None:
    op.create_table(
        "figures",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("name", "place", "state")),
        sa.Column("since", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", "place", "state", "since", "worker"),
        sqlite_with_rowid=False,
    )
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    scope = "coalesce(json_extract(detail, '$.scope'), '')" if is_sqlite else "coalesce(detail::json->>'scope', '')"
    for found in _FOUND.format(scope=scope, week=_OF_WEEK, hour=_OF_HOUR).split(";"):
        op.execute(f"INSERT INTO figures (name, place, state, since, worker, value) {found}")
