"""Room for questions in approvals, where 0006 had none of it yet. PostgreSQL keeps no samples of them either."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the columns to a database whose table was made without them."""
    present = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("approvals")}
    for name in ("question", "question_state"):
        if name not in present:
            op.add_column("approvals", sa.Column(name, sa.Text(), nullable=False, server_default=""))
        if op.get_context().dialect.name == "postgresql":
            op.execute(f"ALTER TABLE approvals ALTER COLUMN {name} SET STATISTICS 0")
