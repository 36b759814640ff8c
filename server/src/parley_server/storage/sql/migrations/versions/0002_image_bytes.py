"""What the images of a run come to; a run that is under way counts from here on."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column."""
    op.add_column("runs", sa.Column("image_bytes", sa.BigInteger(), server_default="0", nullable=False))
