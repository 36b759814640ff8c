"""The answers of runs that have to fit a schema."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column."""
    op.add_column("runs", sa.Column("output_json", sa.Text(), server_default="", nullable=False))
