"""Usage by day, what model calls hold of limits, budgets, and on whose account runs are."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_ID = sa.String(length=64).with_variant(sa.String(length=64, collation="C"), "postgresql")
_USER_ID = sa.String(length=128)
_ACCOUNT = sa.String(length=256)
_UNFINISHED = sa.text("finish_time IS NULL")


def upgrade() -> None:
    """Make the tables, and have the index of live runs tell on whose account they are."""
    for name in ("principal", "credential_id"):
        op.add_column("runs", sa.Column(name, _ACCOUNT, nullable=False, server_default=""))
    op.drop_index("ix_runs_live", "runs")
    op.create_index(
        "ix_runs_live",
        "runs",
        ["user_id", "principal", "credential_id", "run_id"],
        sqlite_where=_UNFINISHED,
        postgresql_where=_UNFINISHED,
    )
    _make_usage_days()
    _make_holds()
    op.create_table(
        "budgets",
        sa.Column("subject_kind", sa.String(length=16), nullable=False),
        sa.Column("subject_id", _ACCOUNT, nullable=False),
        sa.Column("model", sa.String(length=129), nullable=False),
        sa.Column("limits_json", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subject_kind", "subject_id", "model", name=op.f("pk_budgets")),
    )


def _make_usage_days() -> None:
    counts = (
        "input_tokens",
        "cached_input_tokens",
        "output_tokens",
        "reasoning_tokens",
        "model_calls",
        "tool_calls",
        "cost_micros",
        "unpriced_calls",
        "runs",
    )
    op.create_table(
        "usage_days",
        sa.Column("user_id", _USER_ID, nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("principal", _ACCOUNT, nullable=False),
        sa.Column("credential_id", _ACCOUNT, nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("currency_code", sa.String(length=3), nullable=False),
        *(sa.Column(count, sa.BigInteger(), nullable=False) for count in counts),
        sa.PrimaryKeyConstraint(
            "user_id", "day", "principal", "credential_id", "model", "currency_code", name=op.f("pk_usage_days")
        ),
    )
    op.create_index(op.f("ix_usage_days_principal_day"), "usage_days", ["principal", "day"])
    op.create_index(op.f("ix_usage_days_credential_id_day"), "usage_days", ["credential_id", "day"])
    op.create_index(op.f("ix_usage_days_day"), "usage_days", ["day"])


def _make_holds() -> None:
    op.create_table(
        "quota_holds",
        sa.Column("hold_id", _ID, nullable=False),
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("user_id", _USER_ID, nullable=False),
        sa.Column("principal", _ACCOUNT, nullable=False),
        sa.Column("credential_id", _ACCOUNT, nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("cost_micros", sa.BigInteger(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("is_settled", sa.Boolean(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("hold_id", name=op.f("pk_quota_holds")),
    )
    for column in ("run_id", "user_id", "principal", "credential_id", "expire_time"):
        op.create_index(op.f(f"ix_quota_holds_{column}"), "quota_holds", [column])
