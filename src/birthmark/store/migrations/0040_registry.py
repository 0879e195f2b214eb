"""The registry in depth: tags, groups in groups, PEMs as given, settings, and the index that is searched."""

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None


def upgrade() -> None:
    text, number = sa.Text(), sa.BigInteger()
    ordered = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "aws_tags",
        *(sa.Column(name, text, nullable=False) for name in ("kind", "name", "tags")),
        sa.Column("revision", number, nullable=False),
        sa.PrimaryKeyConstraint("kind", "name"),
    )
    for name in ("parent", "query"):
        op.add_column("aws_thing_groups", sa.Column(name, text, nullable=True))
    op.create_index("aws_thing_groups_parent", "aws_thing_groups", ["parent", "name"], unique=False)
    op.create_table(
        "aws_thing_group_lines",
        *(sa.Column(name, text, nullable=False) for name in ("thing_group", "ancestor")),
        sa.Column("distance", number, nullable=False),
        sa.PrimaryKeyConstraint("thing_group", "ancestor"),
    )
    op.create_index("aws_thing_group_lines_below", "aws_thing_group_lines", ["ancestor", "thing_group"], unique=False)
    op.execute("INSERT INTO aws_thing_group_lines SELECT name, name, 0 FROM aws_thing_groups")
    op.drop_index("aws_policy_targets_certificate", table_name="aws_policy_targets")
    op.execute("ALTER TABLE aws_policy_targets RENAME COLUMN certificate_id TO target")
    op.create_index("aws_policy_targets_target", "aws_policy_targets", ["target", "policy"], unique=False)
    for table in ("aws_certificates", "aws_cas"):
        op.add_column(table, sa.Column("pem", text, nullable=True))
    op.create_table(
        "aws_settings",
        *(sa.Column(name, text, nullable=False) for name in ("name", "value")),
        *(sa.Column(name, number, nullable=False) for name in ("revision", "at", "made_at")),
        sa.PrimaryKeyConstraint("name"),
    )
    op.execute("INSERT INTO aws_settings VALUES ('events', '{}', 0, 0, 0), ('indexing', '{}', 0, 0, 0)")
    op.create_table(
        "aws_terms",
        sa.Column("place", text, nullable=False),
        *(sa.Column(name, ordered, nullable=False) for name in ("field", "value", "subject")),
        sa.Column("source", text, nullable=False),
        sa.Column("number", number, nullable=True),
        sa.PrimaryKeyConstraint("place", "field", "value", "subject"),
        sqlite_with_rowid=False,
    )
    op.create_index("aws_terms_subject", "aws_terms", ["subject", "place", "source"], unique=False)
    counted = sa.text("number IS NOT NULL")
    op.create_index(
        "aws_terms_number",
        "aws_terms",
        ["place", "field", "number", "subject"],
        unique=False,
        sqlite_where=counted,
        postgresql_where=counted,
    )
