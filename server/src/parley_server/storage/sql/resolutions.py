"""What users say became of calls in doubt: a row for each call that is settled, and for each copy of it in a fork."""

from collections.abc import Mapping

from sqlalchemy import Connection, bindparam, insert, literal, select

from parley_server.domain.context import RequestContext
from parley_server.domain.errors import NotFoundError
from parley_server.domain.message import Message, ToolCallItem
from parley_server.domain.principal import PrincipalKind
from parley_server.domain.recorded_call import ToolCallNotInDoubtError, ToolCallResolvedError
from parley_server.domain.resolution import CallOutcome, Resolution
from parley_server.domain.tool import ToolCallStatus
from parley_server.storage.sql.database import Row, from_micros
from parley_server.storage.sql.expiry import is_alive
from parley_server.storage.sql.rows import number, string
from parley_server.storage.sql.tables import conversations, tool_call_resolutions, tool_calls

OF_CONVERSATION = select(tool_call_resolutions).where(
    tool_call_resolutions.c.user_id == bindparam("user_id"),
    tool_call_resolutions.c.conversation_id == bindparam("conversation_id"),
)
# What a call's row is joined with to tell of its resolution.
COLUMNS = tuple(tool_call_resolutions.c[name] for name in ("outcome", "note", "actor", "resolve_time"))

_LIVES_IN = conversations.c.conversation_id == tool_calls.c.conversation_id


def resolve(
    connection: Connection, context: RequestContext, key: tuple[str, str], outcome: CallOutcome, note: str, now: int
) -> None:
    """Settle the call of a run, both named by `key`. Raises as `ToolCallRepository.resolve` says."""
    run_id, call_id = key
    its_own = (
        tool_calls.c.run_id == run_id,
        tool_calls.c.call_id == call_id,
        tool_calls.c.user_id == context.user_id,
        is_alive(now),
    )
    call = connection.execute(select(tool_calls).join(conversations, _LIVES_IN).where(*its_own)).first()
    if call is None:
        raise NotFoundError("tool_call")
    if call.status != ToolCallStatus.UNKNOWN_OUTCOME:
        raise ToolCallNotInDoubtError(ToolCallStatus(call.status) if call.status else None)
    same_call = tool_call_resolutions.c.item_id == call.item_id
    settled = connection.execute(select(tool_call_resolutions).where(same_call)).first()
    if settled is None:
        row = {
            "item_id": call.item_id,
            "user_id": context.user_id,
            "conversation_id": call.conversation_id,
            "outcome": outcome,
            "note": note,
            "actor": context.actor,
            "resolve_time": now,
        }
        connection.execute(insert(tool_call_resolutions).values(row))
    elif (settled.outcome, settled.note) != (outcome, note):
        raise ToolCallResolvedError(CallOutcome(settled.outcome))


def resolution_of(row: Row) -> Resolution | None:
    """Read COLUMNS; None where nothing was joined."""
    if row["outcome"] is None:
        return None
    kind, _, name = string(row, "actor").partition(":")
    return Resolution(
        CallOutcome(string(row, "outcome")),
        string(row, "note"),
        PrincipalKind(kind),
        name,
        from_micros(number(row, "resolve_time")),
    )


def is_in_doubt(message: Message) -> bool:
    """Tell whether there may be a resolution of what a message holds."""
    return isinstance(message.item, ToolCallItem) and message.item.status is ToolCallStatus.UNKNOWN_OUTCOME


def copy_resolutions(connection: Connection, new_ids: Mapping[str, str], copy_id: str) -> None:
    """Give a fork what was said of calls whose messages it has copied; `new_ids` are the copies', by the originals'."""
    kept = ("user_id", "outcome", "note", "actor", "resolve_time")
    for item_id, copied_id in new_ids.items():
        copied = select(literal(copied_id), literal(copy_id), *(tool_call_resolutions.c[name] for name in kept)).where(
            tool_call_resolutions.c.item_id == item_id
        )
        connection.execute(insert(tool_call_resolutions).from_select(["item_id", "conversation_id", *kept], copied))
