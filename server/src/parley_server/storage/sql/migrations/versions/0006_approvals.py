"""What users are asked before a tool call is dispatched, and which of their answers are remembered."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_ID = sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql")
_USER_ID = sa.String(length=128)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "approvals",
        sa.Column("approval_id", _ID, nullable=False),
        sa.Column("user_id", _USER_ID, nullable=False),
        sa.Column("conversation_id", _ID, nullable=False),
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("call_id", _ID, nullable=False),
        sa.Column("tool_name", sa.Text(), nullable=False),
        sa.Column("tool_description", sa.Text(), nullable=False),
        sa.Column("effect", sa.String(length=16), nullable=False),
        sa.Column("arguments_json", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("spec_hash", sa.String(length=64), nullable=False),
        sa.Column("question", sa.Text(), nullable=False),
        sa.Column("question_state", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=False),
        sa.Column("decide_time", sa.BigInteger(), nullable=True),
        sa.Column("decider", sa.String(length=256), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("remember", sa.String(length=16), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_approvals_run_id")),
        sa.PrimaryKeyConstraint("approval_id", name=op.f("pk_approvals")),
    )
    for column in ("user_id", "conversation_id", "run_id"):
        op.create_index(op.f(f"ix_approvals_{column}_approval_id"), "approvals", [column, "approval_id"])
    op.create_table(
        "remembered_approvals",
        sa.Column("conversation_id", _ID, nullable=False),
        sa.Column("user_id", _USER_ID, nullable=False),
        sa.Column("tool_name", sa.Text(), nullable=False),
        sa.Column("spec_hash", sa.String(length=64), nullable=False),
        sa.Column("is_approved", sa.Boolean(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.conversation_id"], name=op.f("fk_remembered_approvals_conversation_id")
        ),
        sa.PrimaryKeyConstraint(
            "conversation_id", "user_id", "tool_name", "spec_hash", name=op.f("pk_remembered_approvals")
        ),
    )
