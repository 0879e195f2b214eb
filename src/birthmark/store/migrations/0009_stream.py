"""Telemetry becomes a stream of its hub: what was kept moves there, all of it into the first partition."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "segments",
        sa.Column("stream", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("seq", "partition", "at", "count", "upto")),
        sa.Column("names", sa.LargeBinary(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("stream", "seq", "partition"),
    )
    named = sa.text("names IS NOT NULL")
    columns = ["stream", "partition", "seq"]
    op.create_index("segments_names", "segments", columns, sqlite_where=named, postgresql_where=named)
    op.create_table(
        "positions",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("stream", "grp")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("partition", "position")),
        sa.PrimaryKeyConstraint("stream", "grp", "partition"),
    )
    op.execute(
        "INSERT INTO segments (stream, seq, partition, at, count, upto, body) "
        "SELECT 'hub/' || hub, seq, 0, at, count, sum(length(body)) OVER (PARTITION BY hub ORDER BY seq), body "
        "FROM hub_segments"
    )
    op.drop_table("hub_segments")
