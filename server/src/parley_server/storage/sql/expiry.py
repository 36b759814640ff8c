"""When a conversation ends by itself: its `ttl` after its last change, and never while a run of it goes on or waits."""

from sqlalchemy import BindParameter, ColumnElement, bindparam, exists, or_

from parley_server.storage.sql.tables import conversations, runs

NOW: BindParameter[int] = bindparam("now", type_=conversations.c.expire_time.type)


def is_alive(now: int | BindParameter[int] = NOW) -> ColumnElement[bool]:
    """Return the condition on a conversation that it has not expired."""
    return or_(
        conversations.c.expire_time.is_(None),
        conversations.c.expire_time > now,
        conversations.c.active_run_id.is_not(None),
    )


def of_living_conversation(now: int | BindParameter[int] = NOW) -> ColumnElement[bool]:
    """Return the condition on a run that its conversation has not expired."""
    return exists().where(conversations.c.conversation_id == runs.c.conversation_id, is_alive(now))


def touched(now: int | BindParameter[int] = NOW) -> dict[str, int | ColumnElement[int]]:
    """Return what a change of a conversation or its messages sets in its row."""
    return {"update_time": now, "expire_time": conversations.c.ttl + now}


def etag_of(revision: int, expire_time: int | None) -> str:
    """Return the etag of a row: another one after every update, and after every change of its expiry."""
    return str(revision) if expire_time is None else f"{revision}-{expire_time:x}"
