"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

# Ids are compared byte for byte, whatever language the database sorts in.
_ID = sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql")

# The words come as the search has found them. FTS5's `ascii` leaves them whole: to it, what is not ASCII is a letter.
_SEARCH_TEXTS = {
    "sqlite": [
        """
        CREATE VIRTUAL TABLE search_texts USING fts5 (
            user_id UNINDEXED, conversation_id UNINDEXED, is_title UNINDEXED, words,
            tokenize = 'ascii', detail = none, columnsize = 0
        )
        """
    ],
    "postgresql": [
        """
        CREATE TABLE search_texts (
            user_id VARCHAR(128) NOT NULL,
            conversation_id VARCHAR(64) COLLATE "C" NOT NULL
                CONSTRAINT fk_search_texts_conversation_id REFERENCES conversations,
            is_title BOOLEAN NOT NULL,
            words TEXT NOT NULL
        )
        """,
        "CREATE INDEX ix_search_texts_words ON search_texts USING gin (array_to_tsvector(string_to_array(words, ' ')))",
    ],
}


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "api_keys",
        sa.Column("key_id", _ID, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.String(length=128), nullable=False),
        sa.Column("scopes_json", sa.Text(), nullable=False),
        sa.Column("act_as_json", sa.Text(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("previous_secret_hash", sa.LargeBinary(), nullable=True),
        sa.Column("previous_secret_expire_time", sa.BigInteger(), nullable=True),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=True),
        sa.Column("revoke_time", sa.BigInteger(), nullable=True),
        sa.Column("last_use_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_api_keys")),
    )
    op.create_table(
        "conversations",
        sa.Column("conversation_id", _ID, nullable=False),
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("metadata_json", sa.Text(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=True),
        sa.Column("ttl", sa.BigInteger(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("active_run_id", _ID, nullable=True),
        sa.PrimaryKeyConstraint("conversation_id", name=op.f("pk_conversations")),
    )
    op.create_index(
        op.f("ix_conversations_user_id_update_time_conversation_id"),
        "conversations",
        ["user_id", "update_time", "conversation_id"],
        unique=False,
    )
    op.create_index(
        "ix_conversations_expire_time",
        "conversations",
        ["expire_time"],
        unique=False,
        sqlite_where=sa.text("expire_time IS NOT NULL"),
        postgresql_where=sa.text("expire_time IS NOT NULL"),
    )
    op.create_table(
        "request_ids",
        sa.Column("principal", sa.String(length=256), nullable=False),
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("family", sa.String(length=64), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("object_id", _ID, nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("principal", "user_id", "family", "request_id", name=op.f("pk_request_ids")),
    )
    op.create_index(op.f("ix_request_ids_create_time"), "request_ids", ["create_time"], unique=False)
    op.create_table(
        "run_journal",
        sa.Column(
            "journal_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("first_seq", sa.BigInteger(), nullable=False),
        sa.Column("frames", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("journal_id", name=op.f("pk_run_journal")),
    )
    op.create_table(
        "messages",
        sa.Column("message_id", _ID, nullable=False),
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("conversation_id", _ID, nullable=False),
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("run_position", sa.BigInteger(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("incomplete", sa.Boolean(), nullable=False),
        sa.Column("item_json", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.conversation_id"], name=op.f("fk_messages_conversation_id")
        ),
        sa.PrimaryKeyConstraint("message_id", name=op.f("pk_messages")),
    )
    op.create_index(
        op.f("ix_messages_conversation_id_run_position_ordinal"),
        "messages",
        ["conversation_id", "run_position", "ordinal"],
        unique=True,
    )
    op.create_table(
        "runs",
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("conversation_id", _ID, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("agent_id", _ID, nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("fencing_token", sa.BigInteger(), nullable=False),
        sa.Column("context_json", sa.Text(), nullable=False),
        sa.Column("spec_json", sa.Text(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("deadline_time", sa.BigInteger(), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=True),
        sa.Column("finish_time", sa.BigInteger(), nullable=True),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("usage_json", sa.Text(), nullable=False),
        sa.Column("end_json", sa.Text(), nullable=True),
        sa.Column("output_text", sa.Text(), nullable=False),
        sa.Column("labels_json", sa.Text(), nullable=False),
        sa.Column("cancel_reason", sa.String(length=32), nullable=True),
        sa.Column("grace_end_time", sa.BigInteger(), nullable=True),
        sa.Column("folded_seq", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.conversation_id"], name=op.f("fk_runs_conversation_id")
        ),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_runs")),
    )
    op.create_index(op.f("ix_runs_conversation_id_position"), "runs", ["conversation_id", "position"], unique=True)
    op.create_index(
        "ix_runs_live",
        "runs",
        ["run_id"],
        unique=False,
        sqlite_where=sa.text("finish_time IS NULL"),
        postgresql_where=sa.text("finish_time IS NULL"),
    )
    op.create_index(
        "ix_runs_unfolded",
        "runs",
        ["finish_time"],
        unique=False,
        sqlite_where=sa.text("finish_time IS NOT NULL AND folded_seq IS NULL"),
        postgresql_where=sa.text("finish_time IS NOT NULL AND folded_seq IS NULL"),
    )
    op.create_index(op.f("ix_runs_user_id_run_id"), "runs", ["user_id", "run_id"], unique=False)
    for statement in _SEARCH_TEXTS[op.get_context().dialect.name]:
        op.execute(statement)
    op.create_table(
        "run_archive",
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("first_seq", sa.BigInteger(), nullable=False),
        sa.Column("frames", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_run_archive_run_id")),
        sa.PrimaryKeyConstraint("run_id", "first_seq", name=op.f("pk_run_archive")),
    )
    op.create_table(
        "run_labels",
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.String(length=256), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_run_labels_run_id")),
        sa.PrimaryKeyConstraint("run_id", "key", name=op.f("pk_run_labels")),
    )
    op.create_table(
        "tool_calls",
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("call_id", _ID, nullable=False),
        sa.Column("item_id", _ID, nullable=False),
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("effect", sa.String(length=16), nullable=True),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("idempotency_key", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("plan_time", sa.BigInteger(), nullable=False),
        sa.Column("dispatch_time", sa.BigInteger(), nullable=True),
        sa.Column("finish_time", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_tool_calls_run_id")),
        sa.PrimaryKeyConstraint("run_id", "call_id", name=op.f("pk_tool_calls")),
    )
    op.create_table(
        "steers",
        sa.Column("steer_id", _ID, nullable=False),
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("message_id", _ID, nullable=False),
        sa.Column("input_json", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.run_id"], name=op.f("fk_steers_run_id")),
        sa.PrimaryKeyConstraint("steer_id", name=op.f("pk_steers")),
    )
    op.create_index(op.f("ix_steers_run_id"), "steers", ["run_id"], unique=False)
