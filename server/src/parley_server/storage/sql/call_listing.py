"""The statement of ListToolCalls, made once for every kind of filter."""

from functools import lru_cache

from sqlalchemy import ColumnElement, Select, bindparam, exists, literal_column, select, tuple_

from parley_server.storage.repositories import ToolCallFilter
from parley_server.storage.sql import resolutions
from parley_server.storage.sql.expiry import is_alive
from parley_server.storage.sql.tables import conversations, messages, tool_call_resolutions, tool_calls

_PLACE = (tool_calls.c.run_id, tool_calls.c.call_id)
CALLS = (
    select(tool_calls, messages.c.item_json, *resolutions.COLUMNS)
    .outerjoin(messages, messages.c.message_id == tool_calls.c.item_id)
    .outerjoin(tool_call_resolutions, tool_call_resolutions.c.item_id == tool_calls.c.item_id)
    .where(
        tool_calls.c.user_id == bindparam("user_id"),
        exists().where(conversations.c.conversation_id == tool_calls.c.conversation_id, is_alive()),
    )
)


def listing(call_filter: ToolCallFilter, *, is_first: bool) -> Select[tuple[object, ...]]:
    """Return the statement that lists a user's calls, the newest first, behind a place unless it `is_first`.

    Its parameters are `user_id`, `now`, `limit`, those of `filter_parameters` and, behind a place, `place_parameters`.
    """
    return _listing(
        bool(call_filter.conversation_id),
        bool(call_filter.run_id),
        len(call_filter.statuses),
        call_filter.unresolved,
        is_first,
    )


def filter_parameters(call_filter: ToolCallFilter) -> dict[str, object]:
    """Return what the filter's own parameters are."""
    parameters: dict[str, object] = {f"status_{place}": status for place, status in enumerate(call_filter.statuses)}
    if call_filter.conversation_id:
        parameters["conversation_id"] = call_filter.conversation_id
    if call_filter.run_id:
        parameters["run_id"] = call_filter.run_id
    return parameters


def place_parameters(call_filter: ToolCallFilter, run_id: str, call_id: str) -> dict[str, str]:
    """Return what names the place behind which to list."""
    return {"before_call": call_id} | ({} if call_filter.run_id else {"before_run": run_id})


@lru_cache(maxsize=64)
def _listing(
    of_conversation: bool,
    of_run: bool,
    statuses: int,
    unresolved: bool,
    is_first: bool,
) -> Select[tuple[object, ...]]:
    conditions: list[ColumnElement[bool]] = []
    if of_conversation:
        conditions.append(tool_calls.c.conversation_id == bindparam("conversation_id"))
    if of_run:
        conditions.append(tool_calls.c.run_id == bindparam("run_id"))
    if statuses:
        conditions.append(tool_calls.c.status.in_([bindparam(f"status_{place}") for place in range(statuses)]))
    if unresolved:
        # As the index of them says it.
        conditions.append(tool_calls.c.status == literal_column("'unknown_outcome'"))
        conditions.append(tool_call_resolutions.c.item_id.is_(None))
    # Of one run, by the calls alone: SQLite sorts where it is asked for more.
    if not is_first and of_run:
        conditions.append(tool_calls.c.call_id < bindparam("before_call"))
    elif not is_first:
        conditions.append(tuple_(*_PLACE) < tuple_(bindparam("before_run"), bindparam("before_call")))
    return CALLS.where(*conditions).order_by(*(column.desc() for column in _PLACE)).limit(bindparam("limit"))
