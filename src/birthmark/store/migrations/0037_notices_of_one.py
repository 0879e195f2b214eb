"""What was noticed of one device, found by its name."""

from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("notices_subject", "notices", ["subject", "at"], unique=False)
