"""Tool results too large to be told whole, what users say of calls in doubt, and the order calls are listed in."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_ID = sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql")
_USER_ID = sa.String(length=128)


def upgrade() -> None:
    """Make the tables, and list calls by their conversation."""
    op.create_table(
        "tool_results",
        sa.Column("result_id", _ID, nullable=False),
        sa.Column("conversation_id", _ID, nullable=False),
        sa.Column("user_id", _USER_ID, nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.conversation_id"], name=op.f("fk_tool_results_conversation_id")
        ),
        sa.PrimaryKeyConstraint("result_id", "conversation_id", name=op.f("pk_tool_results")),
    )
    op.create_index(op.f("ix_tool_results_conversation_id"), "tool_results", ["conversation_id"])
    op.create_table(
        "tool_result_contents",
        sa.Column("result_id", _ID, nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("result_id", name=op.f("pk_tool_result_contents")),
    )
    op.create_table(
        "tool_call_resolutions",
        sa.Column("item_id", _ID, nullable=False),
        sa.Column("user_id", _USER_ID, nullable=False),
        sa.Column("conversation_id", _ID, nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(length=256), nullable=False),
        sa.Column("resolve_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.conversation_id"],
            name=op.f("fk_tool_call_resolutions_conversation_id"),
        ),
        sa.PrimaryKeyConstraint("item_id", name=op.f("pk_tool_call_resolutions")),
    )
    op.create_index(op.f("ix_tool_call_resolutions_conversation_id"), "tool_call_resolutions", ["conversation_id"])
    _list_calls_by_conversation()


def _list_calls_by_conversation() -> None:
    op.add_column("tool_calls", sa.Column("conversation_id", _ID, nullable=True))
    op.execute(
        "UPDATE tool_calls SET conversation_id = "
        "(SELECT runs.conversation_id FROM runs WHERE runs.run_id = tool_calls.run_id)"
    )
    with op.batch_alter_table("tool_calls") as table:
        table.alter_column("conversation_id", existing_type=_ID, nullable=False)
    for place in ("user_id", "conversation_id"):
        op.create_index(op.f(f"ix_tool_calls_{place}_run_id_call_id"), "tool_calls", [place, "run_id", "call_id"])
    in_doubt = sa.text("status = 'unknown_outcome'")
    op.create_index(
        "ix_tool_calls_in_doubt",
        "tool_calls",
        ["user_id", "run_id", "call_id"],
        sqlite_where=in_doubt,
        postgresql_where=in_doubt,
    )
