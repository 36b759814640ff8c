"""Starting and ending a run: the writes that go with the first event of an attempt and with the run's last one."""

from datetime import UTC, datetime

from sqlalchemy import Connection, case, insert, select, update

from parley_server.domain.run import RunState
from parley_server.storage.run_log import RunConclusion
from parley_server.storage.sql import archive, search
from parley_server.storage.sql.database import to_micros
from parley_server.storage.sql.expiry import touched
from parley_server.storage.sql.live_run import Sealed
from parley_server.storage.sql.rows import END, ITEM, USAGE, dump
from parley_server.storage.sql.tables import conversations, messages, runs


def set_running(connection: Connection, batch: Sealed) -> None:
    """Begin the run's first attempt; its state becomes RUNNING unless a cancel came first."""
    state = case((runs.c.state == RunState.QUEUED, RunState.RUNNING), else_=runs.c.state)
    connection.execute(
        update(runs)
        .where(runs.c.run_id == batch.live.run_id)
        .values(state=state, attempt=batch.live.attempt, start_time=to_micros(datetime.now(UTC)))
    )


def set_attempt(connection: Connection, batch: Sealed) -> None:
    """Begin a later attempt of the run."""
    connection.execute(update(runs).where(runs.c.run_id == batch.live.run_id).values(attempt=batch.live.attempt))


class Ending:
    """The writes of a run's end, as a callable for the run log; afterwards `next_run_id` names the run that follows."""

    def __init__(self, conclusion: RunConclusion) -> None:
        self._conclusion = conclusion
        self.next_run_id = ""

    def __call__(self, connection: Connection, batch: Sealed) -> None:
        """Do it, in the transaction of the terminal event."""
        now = to_micros(datetime.now(UTC))
        self._end_run(connection, batch, now)
        self._insert_messages(connection, batch, now)
        archive.insert(connection, batch.live.run_id, batch.unarchived)
        self.next_run_id = _pass_on(connection, batch, now)

    def _end_run(self, connection: Connection, batch: Sealed, now: int) -> None:
        connection.execute(
            update(runs)
            .where(runs.c.run_id == batch.live.run_id)
            .values(
                state=self._conclusion.end.state,
                finish_time=now,
                last_seq=batch.events[-1].seq,
                usage_json=dump(USAGE, self._conclusion.usage),
                end_json=dump(END, self._conclusion.end),
                output_text=self._conclusion.output_text,
            )
        )

    def _insert_messages(self, connection: Connection, batch: Sealed, now: int) -> None:
        if not self._conclusion.items:
            return
        position = connection.execute(select(runs.c.position).where(runs.c.run_id == batch.live.run_id)).scalar_one()
        connection.execute(
            insert(messages),
            [
                {
                    "message_id": finished.message_id,
                    "user_id": batch.live.user_id,
                    "conversation_id": batch.live.conversation_id,
                    "run_id": batch.live.run_id,
                    "run_position": position,
                    "ordinal": ordinal,
                    "create_time": now,
                    "incomplete": finished.incomplete,
                    "item_json": dump(ITEM, finished.item),
                }
                for ordinal, finished in enumerate(self._conclusion.items, 1)
            ],
        )
        items = [finished.item for finished in self._conclusion.items]
        search.add_messages(connection, batch.live.user_id, batch.live.conversation_id, items)


def _pass_on(connection: Connection, batch: Sealed, now: int) -> str:
    """Make the conversation's next waiting run its active one, if the ended run was that; return its id."""
    conversation_id = batch.live.conversation_id
    active = select(conversations.c.active_run_id).where(conversations.c.conversation_id == conversation_id)
    if connection.execute(active).scalar() != batch.live.run_id:
        return ""
    waiting = (
        select(runs.c.run_id)
        .where(runs.c.conversation_id == conversation_id, runs.c.state == RunState.QUEUED)
        .order_by(runs.c.position)
        .limit(1)
    )
    next_run_id: str | None = connection.execute(waiting).scalar()
    connection.execute(
        update(conversations)
        .where(conversations.c.conversation_id == conversation_id)
        .values(active_run_id=next_run_id, **touched(now))
    )
    return next_run_id or ""
