"""Sign-in of people: passwords, links to other providers, sessions, and commands that wait to be let in."""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "people_passwords",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("user_name", "hash", "let_in_by")),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("addresses", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("user_name"),
    )
    op.create_table(
        "people_links",
        *(
            sa.Column(name, sa.Text(), nullable=False)
            for name in ("issuer", "subject", "user_name", "provider", "let_in_by")
        ),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("issuer", "subject"),
    )
    op.create_index("people_links_user", "people_links", ["user_name"], unique=False)
    op.create_table(
        "people_sessions",
        *(
            sa.Column(name, sa.Text(), nullable=False)
            for name in ("id", "user_name", "digest", "how", "address", "agent", "let_in_by")
        ),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("created_at", "used_at", "ends_at")),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("people_sessions_user", "people_sessions", ["user_name"], unique=False)
    op.create_table(
        "people_asking",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("digest", "code", "label", "address")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("ends_at", "interval_s", "asked_at")),
        *(sa.Column(name, sa.Text(), nullable=True) for name in ("user_name", "let_in_by")),
        sa.Column("is_agreed", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("people_asking_code", "people_asking", ["code"], unique=True)
