"""Row security: what it needs of the tables; it is built behind every upgrade, see `row_security`."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Find the texts of a conversation in PostgreSQL by an index that may be used before it is known whose they are."""
    if op.get_context().dialect.name == "postgresql":
        op.create_index("ix_search_texts_conversation_id", "search_texts", ["conversation_id"])
