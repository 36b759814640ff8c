"""Results that are too large to be told whole: stored with the event that names them, read in pieces."""

from collections.abc import Collection, Iterable

from sqlalchemy import Connection, LargeBinary, bindparam, delete, exists, func, insert, literal, select, text

from parley_server.domain.run_event import ToolCallFinished
from parley_server.storage.sql.clock import now_micros
from parley_server.storage.sql.expiry import is_alive
from parley_server.storage.sql.live_run import Sealed, Tx
from parley_server.storage.sql.statements import write
from parley_server.storage.sql.tables import conversations, runs, tool_result_contents, tool_results

# A commit whose outcome nobody heard is tried again.
_INSERT = text(
    "INSERT INTO tool_results (result_id, conversation_id, user_id, create_time) "
    "VALUES (:result_id, :conversation_id, :user_id, :create_time) ON CONFLICT DO NOTHING"
)
_INSERT_CONTENT = text(
    "INSERT INTO tool_result_contents (result_id, content) VALUES (:result_id, :content) ON CONFLICT DO NOTHING"
)
_CONTENT = tool_result_contents.c.content
_OWN = (
    tool_result_contents.c.result_id == tool_results.c.result_id,
    tool_results.c.user_id == bindparam("user_id"),
    tool_results.c.result_id == bindparam("result_id"),
    exists().where(conversations.c.conversation_id == tool_results.c.conversation_id, is_alive()),
)
# A fork has the same result once more.
PIECE = (
    select(
        func.substr(_CONTENT, bindparam("start"), bindparam("max_bytes"), type_=LargeBinary).label("content"),
        func.length(_CONTENT).label("total_bytes"),
    )
    .where(*_OWN)
    .limit(1)
)
FOR_RUN = select(_CONTENT).where(
    *_OWN, runs.c.conversation_id == tool_results.c.conversation_id, runs.c.run_id == bindparam("run_id")
)


def stored(bodies: Iterable[ToolCallFinished]) -> list[Tx]:
    """Return the writes that store the whole results of calls of a run; none where none has one."""
    whole = {body.result_id: body.whole_json for body in bodies if body.whole_json}

    def tx(connection: Connection, batch: Sealed) -> None:
        of_run = {
            "conversation_id": batch.live.conversation_id,
            "user_id": batch.live.user_id,
            "create_time": now_micros(),
        }
        write(connection, _INSERT, *({**of_run, "result_id": result_id} for result_id in whole))
        contents = ({"result_id": result_id, "content": told.encode()} for result_id, told in whole.items())
        write(connection, _INSERT_CONTENT, *contents)

    return [tx] if whole else []


def share_results(connection: Connection, result_ids: Collection[str], conversation_id: str, copy_id: str) -> None:
    """Give a fork the results that messages it has copied name."""
    kept = ("result_id", "user_id", "create_time")
    shared = select(literal(copy_id), *(tool_results.c[name] for name in kept)).where(
        tool_results.c.conversation_id == conversation_id, tool_results.c.result_id.in_(result_ids)
    )
    connection.execute(insert(tool_results).from_select(["conversation_id", *kept], shared))


def delete_some(connection: Connection, conversation_id: str, limit: int) -> int:
    """Delete up to `limit` results of a conversation; return how many. What forks have too stays theirs."""
    some = select(tool_results.c.result_id).where(tool_results.c.conversation_id == conversation_id).limit(limit)
    result_ids = connection.execute(some).scalars().all()
    # The contents first: whose they are is told by the rows that name them.
    contents = tool_result_contents.c.result_id
    of_others = tool_results.c.conversation_id != conversation_id
    is_had = exists().where(tool_results.c.result_id == contents, of_others)
    connection.execute(delete(tool_result_contents).where(contents.in_(result_ids), ~is_had))
    of_some = tool_results.c.result_id.in_(result_ids)
    connection.execute(delete(tool_results).where(tool_results.c.conversation_id == conversation_id, of_some))
    return len(result_ids)
