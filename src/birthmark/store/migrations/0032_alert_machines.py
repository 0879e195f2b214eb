"""What each worker sees of its own machine and connections, for alerts; of which alerts nobody wants to hear more."""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "alert_machines",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("worker", "machine")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("at", "disk_free_ppm", "is_clock_steady")),
        *(sa.Column(name, sa.BigInteger(), nullable=True) for name in ("clock_off_us", "server_ends")),
        sa.PrimaryKeyConstraint("worker"),
    )
    op.create_table(
        "alert_ends",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("kind", "name", "worker")),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("ends", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", "worker"),
    )
    op.add_column("alerts", sa.Column("is_hushed", sa.BigInteger(), nullable=False, server_default="0"))
