"""The tables of usage, quotas and budgets. Days are counted from 1970, in UTC; see `tables` for the rest."""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, PrimaryKeyConstraint, String, Table, Text

from parley_server.storage.sql.tables import metadata, runs

_Id = runs.c.run_id.type
_UserId = runs.c.user_id.type

usage_days = Table(
    "usage_days",
    metadata,
    Column("user_id", _UserId, nullable=False),
    Column("day", Integer, nullable=False),
    Column("principal", String(256), nullable=False),
    Column("credential_id", String(256), nullable=False),
    Column("model", String(128), nullable=False),
    Column("currency_code", String(3), nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("model_calls", BigInteger, nullable=False),
    Column("tool_calls", BigInteger, nullable=False),
    Column("cost_micros", BigInteger, nullable=False),
    # The model calls of which nobody knows what they cost.
    Column("unpriced_calls", BigInteger, nullable=False),
    Column("runs", BigInteger, nullable=False),
    PrimaryKeyConstraint("user_id", "day", "principal", "credential_id", "model", "currency_code"),
    Index(None, "principal", "day"),
    Index(None, "credential_id", "day"),
    Index(None, "day"),
)

# The columns that tell whose usage a row is, and those that count it, as they stand in the table.
KEY = tuple(column.name for column in usage_days.primary_key.columns)
COUNTS = tuple(column.name for column in usage_days.columns if column.name not in KEY)

# What model calls take of limits: an estimate while a call is under way, and what it used for as long as that counts.
quota_holds = Table(
    "quota_holds",
    metadata,
    Column("hold_id", _Id, primary_key=True),
    Column("run_id", _Id, nullable=False),
    Column("user_id", _UserId, nullable=False),
    Column("principal", String(256), nullable=False),
    Column("credential_id", String(256), nullable=False),
    Column("model", String(128), nullable=False),
    Column("tokens", BigInteger, nullable=False),
    # 0 once what it cost is in usage_days.
    Column("cost_micros", BigInteger, nullable=False),
    # When it was made, and once it is settled, when that was.
    Column("time", BigInteger, nullable=False),
    Column("is_settled", Boolean, nullable=False),
    # When it counts no more; NULL until it is settled.
    Column("expire_time", BigInteger),
    Index(None, "run_id"),
    Index(None, "user_id"),
    Index(None, "principal"),
    Index(None, "credential_id"),
    Index(None, "expire_time"),
)

# The limits that administrators set at run time.
budgets = Table(
    "budgets",
    metadata,
    Column("subject_kind", String(16), nullable=False),
    Column("subject_id", String(256), nullable=False),
    # A name, or the beginning of names before a `*`; empty: of all models.
    Column("model", String(129), nullable=False),
    Column("limits_json", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    PrimaryKeyConstraint("subject_kind", "subject_id", "model"),
)
