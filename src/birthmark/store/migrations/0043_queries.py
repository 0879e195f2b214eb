"""The terms by which twins are found, and which twins have theirs still to be written: at first all.

Device ids are in the order of code points on both engines: whoever goes through devices by their terms, and then by
their names, meets them in one order.
"""

import sqlalchemy as sa
from alembic import op

revision = "0043"
down_revision = "0042"
branch_labels = None
depends_on = None


def upgrade() -> None:
    ordered = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    if op.get_bind().dialect.name == "postgresql":
        for table in ("hub_devices", "hub_twins"):
            op.execute(f'ALTER TABLE {table} ALTER COLUMN device_id TYPE text COLLATE "C"')
    op.add_column("hub_twins", sa.Column("unindexed", sa.BigInteger(), server_default="3", nullable=False))
    for name, table, columns, condition in (
        ("hub_twins_unindexed", "hub_twins", ["unindexed", "hub", "device_id"], "unindexed > 0"),
        ("hub_devices_edge", "hub_devices", ["hub", "device_id"], "iot_edge = 1"),
    ):
        where = sa.text(condition)
        op.create_index(name, table, columns, unique=False, sqlite_where=where, postgresql_where=where)
    op.create_table(
        "hub_terms",
        sa.Column("place", sa.Text(), nullable=False),
        *(sa.Column(name, ordered, nullable=False) for name in ("path", "value", "subject")),
        sa.PrimaryKeyConstraint("place", "path", "value", "subject"),
        sqlite_with_rowid=False,
    )
    op.create_index("hub_terms_subject", "hub_terms", ["subject", "place"], unique=False)
