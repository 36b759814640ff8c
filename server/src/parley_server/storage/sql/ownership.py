"""Whose the rows of each table are, and what each role of the database may do with them: every table has a line here.

`row_security` makes it law in PostgreSQL, `own_views` for what SQLite reads. A grant is a verb, or a verb and columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass

READ = "SELECT"
ADD = "INSERT"
CHANGE = "UPDATE"
REMOVE = "DELETE"
ALL = (READ, ADD, CHANGE, REMOVE)

Grants = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ownership:
    """Whose the rows of a table are, and what `users`, each with his own rows, and the `run_log` may do with them.

    A row is the user's whom `column` names, if it is as `also` says, or whose row of `parent` has the same `key`; with
    neither it is nobody's. Administration may do `administration`.
    """

    column: str = ""
    also: str = ""
    parent: str = ""
    key: str = ""
    users: Grants = ()
    run_log: Grants = ()
    administration: Grants = ALL

    @property
    def is_users(self) -> bool:
        """Tell whether rows are users' at all."""
        return bool(self.column or self.parent)

    @property
    def readable(self) -> str:
        """Return the columns that users may read, as SQL; empty where they may read none."""
        [granted] = [grant for grant in self.users if grant.startswith(READ)] or [""]
        return granted.removeprefix(READ).strip(" ()") or ("*" if granted else "")

    def condition(self, table: str, user: str, schema: str = "") -> str:
        """Return the SQL that tells whether a row of the table is this user's, who is SQL too."""
        if self.column:
            return " AND ".join(
                [f"{table}.{self.column} = {user}", *([self.also.format(table=table)] if self.also else [])]
            )
        its_parent = f"SELECT 1 FROM {schema}{self.parent} parent WHERE parent.{self.key} = {table}.{self.key}"  # noqa: S608  # names of ours
        own = OWNERSHIP[self.parent].condition("parent", user)
        # The offset keeps PostgreSQL from gathering all parents of the user for the sake of one row.
        return f"EXISTS ({its_parent} AND {own} LIMIT 1 OFFSET 0)"


def _users(users: Grants = ALL, run_log: Grants = ()) -> Ownership:
    return Ownership("user_id", users=users, run_log=run_log)


def _parents(parent: str, key: str, users: Grants, run_log: Grants) -> Ownership:
    return Ownership(parent=parent, key=key, users=users, run_log=run_log)


_STATE_OF_RUN = "state, attempt, start_time, finish_time, last_seq, usage_json, end_json, output_text, output_json"
_STATE_READ = "run_id, conversation_id, position, state, fencing_token, finish_time, cancel_reason"
# Limits hold for all the users of a service together.
_COUNTED_BY = "user_id, principal, credential_id"
_STATE_OF_CALL = "state, dispatch_time, status, error_code, finish_time"

_TOLD_OF_KEY = (
    "key_id, kind, subject, scopes_json, act_as_json, previous_secret_expire_time, create_time, expire_time, "
    "revoke_time, last_use_time"
)

OWNERSHIP: Mapping[str, Ownership] = {
    "conversations": _users(
        ALL, ("SELECT (conversation_id, active_run_id, ttl)", "UPDATE (active_run_id, update_time, expire_time)")
    ),
    "runs": _users(
        ALL,
        (
            f"SELECT ({_STATE_READ}, {_COUNTED_BY})",
            f"UPDATE ({_STATE_OF_RUN}, cancel_reason, grace_end_time)",
        ),
    ),
    "run_labels": _parents("runs", "run_id", (READ, ADD, REMOVE), ()),
    "messages": _users(ALL, (ADD,)),
    "notes": _users(),
    "search_texts": _users((READ, ADD, REMOVE), (ADD,)),
    # That of a run's first event is written with the run, as its user; the ids alone tell nobody anything.
    "run_journal": _parents(
        "runs",
        "run_id",
        ("SELECT (journal_id, run_id)", ADD, REMOVE),
        ("SELECT (journal_id, run_id, first_seq)", ADD, REMOVE),
    ),
    "run_archive": _parents("runs", "run_id", (READ, REMOVE), (ADD,)),
    "tool_calls": _users((READ, REMOVE), ("SELECT (run_id, call_id)", ADD, f"UPDATE ({_STATE_OF_CALL})")),
    "tool_call_resolutions": _users((READ, ADD, REMOVE)),
    "tool_results": _users((READ, ADD, REMOVE), (ADD,)),
    "tool_result_contents": _parents("tool_results", "result_id", (READ, REMOVE), (ADD,)),
    "steers": _parents("runs", "run_id", (READ, ADD, REMOVE), ("SELECT (steer_id, run_id)", REMOVE)),
    # It reads those that it lets expire.
    "approvals": _users((READ, CHANGE, REMOVE), (READ, ADD, "UPDATE (state, decide_time, decider, reason, remember)")),
    "remembered_approvals": _users(),
    "request_ids": _users((READ, ADD)),
    # A user's own, for the export of his account; what a key is checked by is for administration alone.
    "api_keys": Ownership("subject", also="{table}.kind = 'user'", users=(f"SELECT ({_TOLD_OF_KEY})",)),
    "accounts": _users((READ, ADD, CHANGE)),
    # Who is being erased is not told to himself either.
    "erasures": Ownership("user_id"),
    "usage_days": _users((READ,), (READ, ADD, CHANGE)),
    "quota_holds": Ownership("user_id", run_log=ALL),
    "budgets": Ownership(),
    # Nobody changes an entry; the oldest may go.
    "audit_log": Ownership(administration=(READ, ADD, REMOVE)),
}
