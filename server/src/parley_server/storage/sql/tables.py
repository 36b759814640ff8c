"""The tables, once for every engine. Times are integer microseconds UTC, JSON is text: no driver converts anything."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
    }
)

# SQLite makes only a column of exactly this type the table's own row number.
_RowNumber = BigInteger().with_variant(Integer, "sqlite")
# Ids are compared byte for byte, whatever language the database sorts in.
_Id = String(64).with_variant(String(64, collation="C"), "postgresql")
_UserId = String(128)

conversations = Table(
    "conversations",
    metadata,
    Column("conversation_id", _Id, primary_key=True),
    Column("user_id", _UserId, nullable=False),
    Column("title", Text, nullable=False),
    Column("metadata_json", Text, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    Column("expire_time", BigInteger),
    # How long it stays after its last change; NULL: for ever.
    Column("ttl", BigInteger),
    Column("revision", BigInteger, nullable=False),
    Column("active_run_id", _Id),
    Index(None, "user_id", "update_time", "conversation_id"),
    Index(
        "ix_conversations_expire_time",
        "expire_time",
        sqlite_where=text("expire_time IS NOT NULL"),
        postgresql_where=text("expire_time IS NOT NULL"),
    ),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", _Id, primary_key=True),
    Column("user_id", _UserId, nullable=False),
    Column("conversation_id", _Id, ForeignKey("conversations.conversation_id"), nullable=False),
    # The run's place in its conversation: 1, 2, 3 in the order of acceptance, which is the order of execution.
    Column("position", BigInteger, nullable=False),
    Column("agent_id", _Id, nullable=False),
    Column("state", String(32), nullable=False),
    Column("attempt", Integer, nullable=False),
    # Grows with every change of owner; a write that carries an older one touches no row.
    Column("fencing_token", BigInteger, nullable=False),
    Column("context_json", Text, nullable=False),
    Column("spec_json", Text, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("deadline_time", BigInteger, nullable=False),
    Column("start_time", BigInteger),
    Column("finish_time", BigInteger),
    # Kept up to date when the run ends; until then the log itself knows.
    Column("last_seq", BigInteger, nullable=False),
    Column("usage_json", Text, nullable=False),
    Column("end_json", Text),
    Column("output_text", Text, nullable=False),
    # What it says as JSON, of a run whose answer has to fit a schema.
    Column("output_json", Text, nullable=False, server_default=""),
    Column("labels_json", Text, nullable=False),
    # Why the run is CANCELLING, by the name of its stop reason.
    Column("cancel_reason", String(32)),
    # When the run is cancelled because its caller is gone and nobody came back; NULL: no grace is running.
    Column("grace_end_time", BigInteger),
    # The seq of the last event that is folded away, 0 if there was none to fold; NULL: nothing is folded yet.
    Column("folded_seq", BigInteger),
    # Of the images in the input and in all that was added, whether it is applied or not.
    Column("image_bytes", BigInteger, nullable=False, server_default="0"),
    # On whose account it is, beside the user's: the caller and his credential.
    Column("principal", String(256), nullable=False, server_default=""),
    Column("credential_id", String(256), nullable=False, server_default=""),
    Index(None, "user_id", "run_id"),
    Index(None, "conversation_id", "position", unique=True),
    Index(None, "conversation_id", "run_id"),
    Index(
        "ix_runs_live",
        "user_id",
        "principal",
        "credential_id",
        "run_id",
        sqlite_where=text("finish_time IS NULL"),
        postgresql_where=text("finish_time IS NULL"),
    ),
    Index(
        "ix_runs_unfolded",
        "finish_time",
        sqlite_where=text("finish_time IS NOT NULL AND folded_seq IS NULL"),
        postgresql_where=text("finish_time IS NOT NULL AND folded_seq IS NULL"),
    ),
)

run_labels = Table(
    "run_labels",
    metadata,
    Column("run_id", _Id, ForeignKey("runs.run_id"), nullable=False),
    Column("key", String(64), nullable=False),
    Column("value", String(256), nullable=False),
    PrimaryKeyConstraint("run_id", "key"),
)

messages = Table(
    "messages",
    metadata,
    Column("message_id", _Id, primary_key=True),
    Column("user_id", _UserId, nullable=False),
    Column("conversation_id", _Id, ForeignKey("conversations.conversation_id"), nullable=False),
    Column("run_id", _Id, nullable=False),
    # Messages are ordered by their run's place in the conversation, then by their place in the run: the input of a
    # run that waited comes after the answer it waited for.
    Column("run_position", BigInteger, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("incomplete", Boolean, nullable=False),
    Column("item_json", Text, nullable=False),
    Index(None, "conversation_id", "run_position", "ordinal", unique=True),
)

# What agents keep of a user from one conversation to the next.
notes = Table(
    "notes",
    metadata,
    Column("note_id", _Id, primary_key=True),
    Column("user_id", _UserId, nullable=False),
    Column("text", Text, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Index(None, "user_id", "note_id"),
)

# What a search looks at: a row per title and message, and per note under the note's id in place of a conversation's.
# On SQLite it is a virtual table, see migration 0001.
search_texts = Table(
    "search_texts",
    metadata,
    Column("user_id", _UserId, nullable=False),
    Column("conversation_id", _Id, nullable=False),
    Column("is_title", Boolean, nullable=False),
    Column("words", Text, nullable=False),
)

# The append-only journal of live runs: one row per run and commit, no second index (measured: a table clustered by
# run dirties a page per run and commit, the journal only its last page).
run_journal = Table(
    "run_journal",
    metadata,
    Column("journal_id", _RowNumber, primary_key=True, autoincrement=True),
    Column("run_id", _Id, nullable=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("frames", LargeBinary, nullable=False),
)

# The log of a finished run, in pages: whole as the transaction that ends the run writes it, later folded.
run_archive = Table(
    "run_archive",
    metadata,
    Column("run_id", _Id, ForeignKey("runs.run_id"), nullable=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("frames", LargeBinary, nullable=False),
    PrimaryKeyConstraint("run_id", "first_seq"),
)

# The journal of effects: every call a model made, written before it happens. What it was asked and what it answered is
# in the log, and in `messages` under `item_id` once the run has ended.
tool_calls = Table(
    "tool_calls",
    metadata,
    Column("run_id", _Id, ForeignKey("runs.run_id"), nullable=False),
    Column("call_id", _Id, nullable=False),
    Column("item_id", _Id, nullable=False),
    Column("user_id", _UserId, nullable=False),
    Column("conversation_id", _Id, nullable=False),
    Column("name", Text, nullable=False),
    Column("effect", String(16)),
    Column("fingerprint", String(64), nullable=False),
    Column("idempotency_key", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("status", String(32)),
    Column("error_code", Text),
    Column("plan_time", BigInteger, nullable=False),
    Column("dispatch_time", BigInteger),
    Column("finish_time", BigInteger),
    PrimaryKeyConstraint("run_id", "call_id"),
    Index(None, "user_id", "run_id", "call_id"),
    Index(None, "conversation_id", "run_id", "call_id"),
    Index(
        "ix_tool_calls_in_doubt",
        "user_id",
        "run_id",
        "call_id",
        sqlite_where=text("status = 'unknown_outcome'"),
        postgresql_where=text("status = 'unknown_outcome'"),
    ),
)

# What users say became of calls whose outcome is unknown, by the item of the call; a fork copies it.
tool_call_resolutions = Table(
    "tool_call_resolutions",
    metadata,
    Column("item_id", _Id, primary_key=True),
    Column("user_id", _UserId, nullable=False),
    Column("conversation_id", _Id, ForeignKey("conversations.conversation_id"), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("note", Text, nullable=False),
    # The name of the principal, such as `user:ann`.
    Column("actor", String(256), nullable=False),
    Column("resolve_time", BigInteger, nullable=False),
    Index(None, "conversation_id"),
)

# Which conversation has which of the results that are too large to be told whole. A fork has those that the messages it
# has copied name.
tool_results = Table(
    "tool_results",
    metadata,
    Column("result_id", _Id, nullable=False),
    Column("conversation_id", _Id, ForeignKey("conversations.conversation_id"), nullable=False),
    Column("user_id", _UserId, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    PrimaryKeyConstraint("result_id", "conversation_id"),
    Index(None, "conversation_id"),
)

# The results themselves, JSON in UTF-8: once for all conversations that have them, and gone with the last of these.
tool_result_contents = Table(
    "tool_result_contents",
    metadata,
    Column("result_id", _Id, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

# What users added to runs under way and the model has not seen; a row goes when it is applied or the run has ended.
steers = Table(
    "steers",
    metadata,
    Column("steer_id", _Id, primary_key=True),
    Column("run_id", _Id, ForeignKey("runs.run_id"), nullable=False),
    Column("message_id", _Id, nullable=False),
    Column("input_json", Text, nullable=False),
    Index(None, "run_id"),
)

# What users are asked before a call is dispatched; a row stays as long as its run.
approvals = Table(
    "approvals",
    metadata,
    Column("approval_id", _Id, primary_key=True),
    Column("user_id", _UserId, nullable=False),
    Column("conversation_id", _Id, nullable=False),
    Column("run_id", _Id, ForeignKey("runs.run_id"), nullable=False),
    Column("call_id", _Id, nullable=False),
    Column("tool_name", Text, nullable=False),
    Column("tool_description", Text, nullable=False),
    Column("effect", String(16), nullable=False),
    Column("arguments_json", Text, nullable=False),
    # What the answer holds for: other arguments or another tool under the name are asked for anew.
    Column("fingerprint", String(64), nullable=False),
    Column("spec_hash", String(64), nullable=False),
    # What the tool asks in the middle of the call, and what it wants back with a yes; empty where it asks nothing.
    Column("question", Text, nullable=False),
    Column("question_state", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("expire_time", BigInteger, nullable=False),
    Column("decide_time", BigInteger),
    # The name of the principal, such as `user:ann`.
    Column("decider", String(256)),
    Column("reason", Text, nullable=False),
    Column("remember", String(16)),
    Index(None, "user_id", "approval_id"),
    Index(None, "conversation_id", "approval_id"),
    Index(None, "run_id", "approval_id"),
)

# The answers that hold for the rest of a conversation: for the tool as it was described when it was asked for.
remembered_approvals = Table(
    "remembered_approvals",
    metadata,
    Column("conversation_id", _Id, ForeignKey("conversations.conversation_id"), nullable=False),
    Column("user_id", _UserId, nullable=False),
    Column("tool_name", Text, nullable=False),
    Column("spec_hash", String(64), nullable=False),
    Column("is_approved", Boolean, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    PrimaryKeyConstraint("conversation_id", "user_id", "tool_name", "spec_hash"),
)

request_ids = Table(
    "request_ids",
    metadata,
    Column("principal", String(256), nullable=False),
    Column("user_id", _UserId, nullable=False),
    Column("family", String(64), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("object_id", _Id, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    PrimaryKeyConstraint("principal", "user_id", "family", "request_id"),
    Index(None, "create_time"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", _Id, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("subject", _UserId, nullable=False),
    Column("scopes_json", Text, nullable=False),
    Column("act_as_json", Text, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),
    # Of the secret before the last rotation; works until its time.
    Column("previous_secret_hash", LargeBinary),
    Column("previous_secret_expire_time", BigInteger),
    Column("create_time", BigInteger, nullable=False),
    Column("expire_time", BigInteger),
    Column("revoke_time", BigInteger),
    Column("last_use_time", BigInteger),
)

# Who did what. Append-only by triggers, each row bound to the one before it by its `mac`: see domain/audit_chain.py.
# The user's column has a name of its own, because what is erased and exported as his is found by `user_id`.
audit_log = Table(
    "audit_log",
    metadata,
    Column("position", _RowNumber, primary_key=True, autoincrement=False),
    Column("time", BigInteger, nullable=False),
    Column("action", Text, nullable=False),
    Column("decision", String(16), nullable=False),
    Column("principal", Text, nullable=False),
    # The names of those who act for another, with blanks between them.
    Column("actors", Text, nullable=False),
    Column("effective_user", Text, nullable=False),
    Column("object_type", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("peer", Text, nullable=False),
    Column("credential_id", Text, nullable=False),
    Column("about", BigInteger),
    Column("left_out", BigInteger, nullable=False),
    Column("mac", LargeBinary, nullable=False),
    Index(None, "effective_user", "position"),
    Index(None, "principal", "position"),
    Index(None, "time"),
    # What the trigger asks that lets nothing be deleted but what was truncated.
    Index(
        "ix_audit_log_truncations",
        "about",
        sqlite_where=text("action = 'audit truncate'"),
        postgresql_where=text("action = 'audit truncate'"),
    ),
)

# What users have told of themselves, once, for all their clients.
accounts = Table(
    "accounts",
    metadata,
    Column("user_id", _UserId, primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("time_zone", String(64), nullable=False),
    Column("locale", String(64), nullable=False),
    # In minutes after midnight of the account's zone; both or neither.
    Column("quiet_start_minute", Integer),
    Column("quiet_end_minute", Integer),
    Column("create_time", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
)

# The users of whom everything is being erased; the row is the last that goes.
erasures = Table(
    "erasures",
    metadata,
    Column("user_id", _UserId, primary_key=True),
    Column("begin_time", BigInteger, nullable=False),
)
