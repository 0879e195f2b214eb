"""People: users, their roles, tokens and invitations."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "people_users",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "people_grants",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("user_name", "role", "place")),
        sa.PrimaryKeyConstraint("user_name", "role", "place"),
    )
    op.create_table(
        "people_tokens",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("id", "user_name", "digest", "label", "made_by")),
        *(sa.Column(name, sa.Text(), nullable=True) for name in ("role", "place")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("created_at", "ends_at")),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("people_tokens_user", "people_tokens", ["user_name"], unique=False)
    op.create_table(
        "people_invitations",
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("digest", "user_name", "made_by")),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "people_approvals",
        *(
            sa.Column(name, sa.Text(), nullable=False)
            for name in ("digest", "id", "user_name", "what", "method", "path", "body", "needs", "place")
        ),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("asked_at", "ends_at")),
        sa.Column("decided_by", sa.Text(), nullable=True),
        sa.Column("is_approved", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("people_approvals_id", "people_approvals", ["id"], unique=False)
    op.create_index("people_invitations_user", "people_invitations", ["user_name"], unique=False)
