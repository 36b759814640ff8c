"""Deleting conversations with all that belongs to them, at a user's wish and when their time is over."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, delete, not_, select

from parley_server.domain.errors import ConversationBusyError, NotFoundError
from parley_server.storage.sql import search
from parley_server.storage.sql.expiry import is_alive
from parley_server.storage.sql.tables import (
    approvals,
    conversations,
    messages,
    remembered_approvals,
    run_archive,
    run_journal,
    run_labels,
    runs,
    steers,
    tool_call_resolutions,
    tool_calls,
)
from parley_server.storage.sql.tool_results import delete_some

OF_RUNS = (run_labels, run_archive, run_journal, tool_calls, approvals, steers)
_OF_CONVERSATION = (messages, remembered_approvals, tool_call_resolutions)
# A large result takes as long as so many rows of other kinds.
_ROWS_OF_A_RESULT = 25
_RESULTS_AT_ONCE = 100


def delete_conversation(connection: Connection, user_id: str, conversation_id: str, now: int) -> Sequence[str]:
    """Delete a conversation with all that belongs to it; return its runs.

    Raises:
        NotFoundError: no such conversation for this user.
        ConversationBusyError: a run of it is under way or waits.
    """
    own = (conversations.c.user_id == user_id, conversations.c.conversation_id == conversation_id)
    row = connection.execute(select(conversations.c.active_run_id).where(*own, is_alive(now))).first()
    if row is None:
        raise NotFoundError("conversation")
    if row.active_run_id:
        raise ConversationBusyError(
            "the conversation has a run under way; cancel it first", metadata={"active_run_id": row.active_run_id}
        )
    run_ids = connection.execute(select(runs.c.run_id).where(runs.c.conversation_id == conversation_id)).scalars().all()
    its_runs = select(runs.c.run_id).where(runs.c.conversation_id == conversation_id)
    for table in OF_RUNS:
        connection.execute(delete(table).where(table.c.run_id.in_(its_runs)))
    search.remove(connection, conversation_id)
    while delete_some(connection, conversation_id, _RESULTS_AT_ONCE):
        pass
    for table in (runs, *_OF_CONVERSATION, conversations):
        connection.execute(delete(table).where(table.c.conversation_id == conversation_id))
    return run_ids


def has_expired(now: int) -> ColumnElement[bool]:
    """Return the condition on a conversation that its time is over."""
    return (conversations.c.expire_time <= now) & not_(is_alive(now))


class PartialDeletion:
    """Deletes a bounded part of the conversations that meet a condition, as a callable for the writer.

    A conversation may take several parts: nobody is to see what is left of it meanwhile. Afterwards `run_ids` are the
    runs that are gone.
    """

    def __init__(self, condition: ColumnElement[bool], limit: int) -> None:
        self._some = (
            select(conversations.c.conversation_id)
            .where(condition)
            .order_by(conversations.c.expire_time, conversations.c.conversation_id)
            .limit(limit)
        )
        self._limit = limit
        self.run_ids: list[str] = []

    def __call__(self, connection: Connection) -> int:
        """Delete up to about `limit` rows of each kind; return how many it were in all, 0 when nothing is left."""
        deleted = 0
        for conversation_id in connection.execute(self._some).scalars().all():
            deleted += self._delete_part(connection, conversation_id, self._limit - deleted)
            if deleted >= self._limit:
                break
        return deleted

    def _delete_part(self, connection: Connection, conversation_id: str, limit: int) -> int:
        """Delete up to `limit` rows of one conversation, and it too when nothing of it is left."""
        deleted = search.remove_some(connection, conversation_id, limit)
        deleted += self._delete_runs(connection, conversation_id, limit - deleted) if deleted < limit else 0
        deleted += _delete_messages(connection, conversation_id, limit - deleted) if deleted < limit else 0
        deleted += _delete_results(connection, conversation_id, limit - deleted) if deleted < limit else 0
        if deleted < limit:
            for table in (*_OF_CONVERSATION, conversations):
                connection.execute(delete(table).where(table.c.conversation_id == conversation_id))
            deleted += 1
        return deleted

    def _delete_runs(self, connection: Connection, conversation_id: str, limit: int) -> int:
        some = select(runs.c.run_id).where(runs.c.conversation_id == conversation_id).limit(limit)
        run_ids = connection.execute(some).scalars().all()
        for table in (*OF_RUNS, runs):
            connection.execute(delete(table).where(table.c.run_id.in_(run_ids)))
        self.run_ids += run_ids
        return len(run_ids)


def _delete_messages(connection: Connection, conversation_id: str, limit: int) -> int:
    some = select(messages.c.message_id).where(messages.c.conversation_id == conversation_id).limit(limit)
    return connection.execute(delete(messages).where(messages.c.message_id.in_(some))).rowcount


def _delete_results(connection: Connection, conversation_id: str, limit: int) -> int:
    """Delete a few; return how many rows that was as much as: `limit` when there may be more."""
    few = max(1, limit // _ROWS_OF_A_RESULT)
    deleted = delete_some(connection, conversation_id, few)
    return limit if deleted == few else deleted * _ROWS_OF_A_RESULT
