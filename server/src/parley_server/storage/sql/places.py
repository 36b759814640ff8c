"""The places of a conversation's runs: the order in which they are performed and in which their messages are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from sqlalchemy import Connection, bindparam, func, select, update

from parley_server.domain.run import RunState, StopReason
from parley_server.storage.sql.statements import first
from parley_server.storage.sql.tables import messages, runs

_LAST_POSITION = select(func.max(runs.c.position)).where(runs.c.conversation_id == bindparam("conversation_id"))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a new run goes: its position, and its number among those that wait, 0 if it need not."""

    position: int
    queue_position: int


def behind_all(connection: Connection, conversation_id: str) -> int:
    """Return the position behind every run of a conversation."""
    last = first(connection, _LAST_POSITION, {"conversation_id": conversation_id})
    return (cast("int | None", last[0]) or 0 if last else 0) + 1


def waiting_runs(connection: Connection, conversation_id: str, active_run_id: str) -> Sequence[str]:
    """Return the runs that wait for the active one, the next of them first."""
    waiting = (
        select(runs.c.run_id)
        .where(
            runs.c.conversation_id == conversation_id,
            runs.c.state == RunState.QUEUED,
            runs.c.run_id != active_run_id,
        )
        .order_by(runs.c.position)
    )
    return connection.execute(waiting).scalars().all()


def before_all(connection: Connection, conversation_id: str, waiting: Sequence[str]) -> int:
    """Move the waiting runs, all there are, back by one; return the position that is free now, before them."""
    free = behind_all(connection, conversation_id)
    # From the last on: no two runs may have one position at any time.
    for run_id in reversed(waiting):
        position: int = connection.execute(select(runs.c.position).where(runs.c.run_id == run_id)).scalar_one()
        connection.execute(update(runs).where(runs.c.run_id == run_id).values(position=free))
        its_messages = (messages.c.conversation_id == conversation_id, messages.c.run_position == position)
        connection.execute(update(messages).where(*its_messages).values(run_position=free))
        free = position
    return free


def interrupt(connection: Connection, run_id: str) -> None:
    """Set a run CANCELLING for the sake of the one that follows, unless it is that already."""
    connection.execute(
        update(runs)
        .where(runs.c.run_id == run_id)
        .values(
            state=RunState.CANCELLING,
            cancel_reason=func.coalesce(runs.c.cancel_reason, StopReason.INTERRUPTED.value),
        )
    )
