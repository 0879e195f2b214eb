"""One set of tables for the sessions of every cloud; what the clouds kept for themselves moves there.

A stored session of AWS becomes one of the space `aws`; its messages keep their order. What a hub's device subscribed
to becomes a session of the space `hub/NAME`. Shapes of filters are filled in at the next start.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("space", sa.Text(), nullable=False),
        sa.Column("client", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("expiry_s", "tail", "cursor", "sent")),
        sa.Column("will", sa.LargeBinary(), nullable=True),
        sa.Column("will_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("space", "client"),
        sqlite_with_rowid=False,
    )
    for column in ("expires_at", "will_at", "owner"):
        there = sa.text(f"{column} IS NOT NULL")
        op.create_index(f"sessions_{column}", "sessions", [column], sqlite_where=there, postgresql_where=there)
    op.create_table(
        "subscriptions",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("space", "filter", "client", "share", "shape")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("qos", "options")),
        sa.PrimaryKeyConstraint("space", "filter", "client", "share"),
        sqlite_with_rowid=False,
    )
    op.create_index("subscriptions_client", "subscriptions", ["space", "client"])
    op.create_table(
        "queue",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("space", "client")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("last", "count", "at")),
        sa.Column("message", sa.BigInteger(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("space", "client", "last"),
    )
    shared = sa.text("message IS NOT NULL")
    op.create_index("queue_message", "queue", ["message"], sqlite_where=shared, postgresql_where=shared)
    op.create_table(
        "messages",
        sa.Column("id", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "retained",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("space", "topic")),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("qos", "size")),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("space", "topic"),
    )
    op.create_table(
        "inbox",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("space", "client")),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("enqueued_at", "expires_at", "deliveries")),
        sa.Column("lock", sa.Text(), nullable=True),
        sa.Column("locked_until", sa.BigInteger(), nullable=True),
        sa.Column("feedback", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("space", "client", "seq"),
    )
    op.create_index("inbox_expires_at", "inbox", ["expires_at"])
    op.create_table(
        "hub_twins",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("hub", "device_id")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("version", "updated_at")),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("hub", "device_id"),
    )
    _move()


def _move() -> None:
    """An owner that is no worker is one that was killed: its sessions begin to expire at the next start."""
    op.execute(
        "INSERT INTO sessions (space, client, epoch, owner, expires_at, expiry_s, tail, cursor, sent) "
        "SELECT 'aws', client_id, 1, CASE WHEN expires_at IS NULL THEN '0.1.0' END, expires_at, "
        "3600, 0, 0, 0 FROM aws_sessions"
    )
    op.execute(
        "INSERT INTO subscriptions (space, filter, client, share, shape, qos, options) "
        "SELECT 'aws', filter, client_id, '', '', qos, 0 FROM aws_subscriptions"
    )
    op.execute(
        "INSERT INTO sessions (space, client, epoch, expiry_s, tail, cursor, sent) "
        "SELECT DISTINCT 'hub/' || hub, device_id, 1, 4294967295, 0, 0, 0 FROM hub_subscriptions"
    )
    op.execute(
        "INSERT INTO subscriptions (space, filter, client, share, shape, qos, options) "
        "SELECT 'hub/' || hub, filter, device_id, '', '', qos, 0 FROM hub_subscriptions"
    )
    for table in ("aws_sessions", "aws_subscriptions", "hub_subscriptions"):
        op.drop_table(table)
