"""What is written of conversations, inside the caller's transaction."""

from collections.abc import Mapping

from sqlalchemy import Connection, bindparam, insert, select, update

from parley_server.domain.conversation import ConversationChanges
from parley_server.domain.errors import EtagMismatchError, NotFoundError
from parley_server.storage.sql import search
from parley_server.storage.sql.expiry import etag_of, is_alive, touched
from parley_server.storage.sql.rows import PAIRS, dump
from parley_server.storage.sql.statements import write
from parley_server.storage.sql.tables import conversations

_INSERT = insert(conversations)
_SET_ACTIVE_RUN = (
    update(conversations)
    .where(conversations.c.conversation_id == bindparam("of_conversation"))
    .values(active_run_id=bindparam("run"), **touched())
)


def insert_conversation(  # noqa: PLR0913  # what a row is made of
    connection: Connection,
    user_id: str,
    conversation_id: str,
    title: str,
    now: int,
    metadata: Mapping[str, str] | None = None,
    *,
    ttl: int | None,
) -> None:
    """Add a conversation without messages; `ttl` is how many microseconds after its last change it expires."""
    row = {
        "conversation_id": conversation_id,
        "user_id": user_id,
        "title": title,
        "metadata_json": dump(PAIRS, dict(metadata or {})),
        "create_time": now,
        "update_time": now,
        "expire_time": None if ttl is None else now + ttl,
        "ttl": ttl,
        "revision": 1,
    }
    write(connection, _INSERT, row)
    search.add_title(connection, user_id, conversation_id, title)


def set_active_run(connection: Connection, conversation_id: str, run_id: str | None, now: int) -> None:
    """Note which run of a conversation is under way, and that the conversation has changed."""
    write(connection, _SET_ACTIVE_RUN, {"of_conversation": conversation_id, "run": run_id, "now": now})


def change_conversation(
    connection: Connection, user_id: str, conversation_id: str, changes: ConversationChanges, etag: str, now: int
) -> None:
    """Change a conversation; raises as `ConversationRepository.update` says."""
    own = (conversations.c.user_id == user_id, conversations.c.conversation_id == conversation_id)
    columns = (conversations.c.revision, conversations.c.expire_time)
    row = connection.execute(select(*columns).where(*own, is_alive(now))).first()
    if row is None:
        raise NotFoundError("conversation")
    if etag and etag != etag_of(row.revision, row.expire_time):
        raise EtagMismatchError("conversation")
    values: dict[str, object] = {"revision": row.revision + 1, **touched(now)}
    if changes.title is not None:
        values["title"] = changes.title
        search.set_title(connection, user_id, conversation_id, changes.title)
    if changes.metadata is not None:
        values["metadata_json"] = dump(PAIRS, dict(changes.metadata))
    connection.execute(update(conversations).where(*own).values(**values))
