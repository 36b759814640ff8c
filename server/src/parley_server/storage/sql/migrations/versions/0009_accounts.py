"""Accounts, and who is being erased. PostgreSQL keeps no samples of what users write."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_USER_ID = sa.String(length=128)
# The engine's statistics would hold words of users that are in no table any more.
_UNSAMPLED = {
    "accounts": ("display_name",),
    "approvals": ("tool_description", "arguments_json", "reason"),
    "conversations": ("title", "metadata_json"),
    "messages": ("item_json",),
    "notes": ("text",),
    "run_archive": ("frames",),
    "run_journal": ("frames",),
    "run_labels": ("key", "value"),
    "runs": ("context_json", "spec_json", "end_json", "output_text", "output_json", "labels_json"),
    "request_ids": ("request_id",),
    "search_texts": ("words",),
    "steers": ("input_json",),
    "tool_call_resolutions": ("note",),
    "tool_result_contents": ("content",),
}


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "accounts",
        sa.Column("user_id", _USER_ID, nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("time_zone", sa.String(length=64), nullable=False),
        sa.Column("locale", sa.String(length=64), nullable=False),
        sa.Column("quiet_start_minute", sa.Integer(), nullable=True),
        sa.Column("quiet_end_minute", sa.Integer(), nullable=True),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_accounts")),
    )
    op.create_table(
        "erasures",
        sa.Column("user_id", _USER_ID, nullable=False),
        sa.Column("begin_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_erasures")),
    )
    if op.get_context().dialect.name == "postgresql":
        for table, columns in _UNSAMPLED.items():
            for column in columns:
                op.execute(f'ALTER TABLE {table} ALTER COLUMN "{column}" SET STATISTICS 0')
        # Of the expression that the search's index is on there are statistics, too.
        op.execute("ALTER INDEX ix_search_texts_words ALTER COLUMN 1 SET STATISTICS 0")
