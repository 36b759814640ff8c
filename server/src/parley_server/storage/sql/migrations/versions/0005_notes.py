"""What agents keep of a user from one conversation to the next."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_ID = sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "notes",
        sa.Column("note_id", _ID, nullable=False),
        sa.Column("user_id", sa.String(length=128), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("note_id", name=op.f("pk_notes")),
    )
    op.create_index(op.f("ix_notes_user_id_note_id"), "notes", ["user_id", "note_id"], unique=False)
    if op.get_context().dialect.name == "postgresql":
        # Texts of notes are searched in the same table, under ids that are no conversation's.
        op.drop_constraint("fk_search_texts_conversation_id", "search_texts", type_="foreignkey")
