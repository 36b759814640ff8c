"""The audit log, and the triggers that let rows be added to it and nothing else."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TEXTS = (
    "principal",
    "actors",
    "effective_user",
    "object_type",
    "object_id",
    "status",
    "reason",
    "request_id",
    "peer",
    "credential_id",
)
_TRUNCATED = "coalesce((SELECT max(about) FROM audit_log WHERE action = 'audit truncate'), 0)"

# The last is for REPLACE, which deletes without asking the trigger of deletes.
_SQLITE = (
    (
        "CREATE TRIGGER audit_log_update BEFORE UPDATE ON audit_log "
        "BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END"
    ),
    (
        f"CREATE TRIGGER audit_log_delete BEFORE DELETE ON audit_log WHEN OLD.position > {_TRUNCATED} "
        "BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END"
    ),
    (
        "CREATE TRIGGER audit_log_insert BEFORE INSERT ON audit_log "
        "WHEN NEW.position <= coalesce((SELECT max(position) FROM audit_log), 0) "
        "BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END"
    ),
)
_POSTGRESQL = (
    (
        "CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF TG_OP = 'DELETE' THEN IF OLD.position <= {_TRUNCATED} THEN RETURN OLD; END IF; END IF; "
        "RAISE EXCEPTION 'audit_log is append-only'; END $$"
    ),
    (
        "CREATE TRIGGER audit_log_change BEFORE UPDATE OR DELETE ON audit_log "
        "FOR EACH ROW EXECUTE FUNCTION refuse_audit_change()"
    ),
    (
        "CREATE TRIGGER audit_log_truncate BEFORE TRUNCATE ON audit_log "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()"
    ),
)


def upgrade() -> None:
    """Make the table and its triggers."""
    op.create_table(
        "audit_log",
        sa.Column("position", _ROW_NUMBER, autoincrement=False, nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("decision", sa.String(length=16), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in _TEXTS),
        sa.Column("about", sa.BigInteger(), nullable=True),
        sa.Column("left_out", sa.BigInteger(), nullable=False),
        sa.Column("mac", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_audit_log")),
    )
    for columns in (["effective_user", "position"], ["principal", "position"], ["time"]):
        op.create_index(op.f(f"ix_audit_log_{'_'.join(columns)}"), "audit_log", columns)
    truncation = sa.text("action = 'audit truncate'")
    op.create_index(
        "ix_audit_log_truncations", "audit_log", ["about"], sqlite_where=truncation, postgresql_where=truncation
    )
    for statement in _POSTGRESQL if op.get_context().dialect.name == "postgresql" else _SQLITE:
        op.execute(statement)
