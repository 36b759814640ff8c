"""The runs of a conversation in the order in which they are listed."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the index."""
    op.create_index(op.f("ix_runs_conversation_id_run_id"), "runs", ["conversation_id", "run_id"])
