"""What is written of conversations, inside the caller's transaction."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, delete, insert, select, update

from parley_server.domain.conversation import ConversationChanges
from parley_server.domain.errors import ConversationBusyError, EtagMismatchError, NotFoundError
from parley_server.storage.sql import search
from parley_server.storage.sql.rows import PAIRS, dump
from parley_server.storage.sql.tables import (
    conversations,
    messages,
    run_archive,
    run_journal,
    run_labels,
    runs,
)


def insert_conversation(
    connection: Connection, user_id: str, conversation_id: str, title: str, now: int, metadata: Mapping[str, str]
) -> None:
    """Add a conversation without messages."""
    connection.execute(
        insert(conversations).values(
            conversation_id=conversation_id,
            user_id=user_id,
            title=title,
            metadata_json=dump(PAIRS, dict(metadata)),
            create_time=now,
            update_time=now,
            revision=1,
        )
    )
    search.set_title(connection, user_id, conversation_id, title)


def change_conversation(
    connection: Connection, user_id: str, conversation_id: str, changes: ConversationChanges, etag: str, now: int
) -> None:
    """Change a conversation; raises as `ConversationRepository.update` says."""
    own = (conversations.c.user_id == user_id, conversations.c.conversation_id == conversation_id)
    row = connection.execute(select(conversations.c.revision).where(*own)).first()
    if row is None:
        raise NotFoundError("conversation")
    if etag and etag != str(row.revision):
        raise EtagMismatchError("conversation")
    values: dict[str, object] = {"revision": row.revision + 1, "update_time": now}
    if changes.title is not None:
        values["title"] = changes.title
        search.set_title(connection, user_id, conversation_id, changes.title)
    if changes.metadata is not None:
        values["metadata_json"] = dump(PAIRS, dict(changes.metadata))
    connection.execute(update(conversations).where(*own).values(**values))


def delete_conversation(connection: Connection, user_id: str, conversation_id: str) -> Sequence[str]:
    """Delete a conversation with all that belongs to it; return its runs.

    Raises:
        NotFoundError: no such conversation for this user.
        ConversationBusyError: a run of it is under way or waits.
    """
    own = (conversations.c.user_id == user_id, conversations.c.conversation_id == conversation_id)
    row = connection.execute(select(conversations.c.active_run_id).where(*own)).first()
    if row is None:
        raise NotFoundError("conversation")
    if row.active_run_id:
        raise ConversationBusyError(
            "the conversation has a run under way; cancel it first", metadata={"active_run_id": row.active_run_id}
        )
    run_ids = connection.execute(select(runs.c.run_id).where(runs.c.conversation_id == conversation_id)).scalars().all()
    its_runs = select(runs.c.run_id).where(runs.c.conversation_id == conversation_id)
    for table in (run_labels, run_archive, run_journal):
        connection.execute(delete(table).where(table.c.run_id.in_(its_runs)))
    search.remove(connection, conversation_id)
    for table in (runs, messages, conversations):
        connection.execute(delete(table).where(table.c.conversation_id == conversation_id))
    return run_ids
