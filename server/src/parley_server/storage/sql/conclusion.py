"""Starting and ending a run: the writes that go with the first event of an attempt and with the run's last one."""

from collections.abc import Sequence
from typing import cast

from sqlalchemy import Connection, bindparam, case, insert, select, update

from parley_server.domain.run import RunState
from parley_server.storage.run_log import RunConclusion
from parley_server.storage.sql import archive, search
from parley_server.storage.sql.clock import now_micros
from parley_server.storage.sql.conversation_writes import set_active_run
from parley_server.storage.sql.live_run import Sealed
from parley_server.storage.sql.rows import END, ITEM, USAGE, dump
from parley_server.storage.sql.statements import first, write
from parley_server.storage.sql.tables import conversations, messages, runs

_OF_RUN = runs.c.run_id == bindparam("of_run")
_OF_CONVERSATION = conversations.c.conversation_id == bindparam("of_conversation")
_SET_RUNNING = (
    update(runs)
    .where(_OF_RUN)
    .values(
        state=case((runs.c.state == RunState.QUEUED, RunState.RUNNING), else_=runs.c.state),
        attempt=bindparam("new_attempt"),
        start_time=bindparam("now"),
    )
)
_SET_ATTEMPT = update(runs).where(_OF_RUN).values(attempt=bindparam("new_attempt"))
_END = (
    update(runs)
    .where(_OF_RUN)
    .values(
        state=bindparam("end_state"),
        finish_time=bindparam("now"),
        last_seq=bindparam("final_seq"),
        usage_json=bindparam("final_usage"),
        end_json=bindparam("final_end"),
        output_text=bindparam("final_text"),
        output_json=bindparam("final_json"),
    )
)
_POSITION = select(runs.c.position).where(_OF_RUN)
_INSERT_MESSAGES = insert(messages)
_ACTIVE = select(conversations.c.active_run_id).where(_OF_CONVERSATION)
_NEXT = (
    select(runs.c.run_id)
    .where(runs.c.conversation_id == bindparam("of_conversation"), runs.c.state == RunState.QUEUED)
    .order_by(runs.c.position)
    .limit(1)
)


def set_running(connection: Connection, batch: Sealed) -> None:
    """Begin the run's first attempt; its state becomes RUNNING unless a cancel came first."""
    begun = {"of_run": batch.live.run_id, "new_attempt": batch.live.attempt, "now": now_micros()}
    write(connection, _SET_RUNNING, begun)


def set_attempt(connection: Connection, batch: Sealed) -> None:
    """Begin a later attempt of the run."""
    set_attempts(connection, [batch])


def set_attempts(connection: Connection, batches: Sequence[Sealed]) -> None:
    """Begin a later attempt of each run."""
    rows = ({"of_run": batch.live.run_id, "new_attempt": batch.live.attempt} for batch in batches)
    write(connection, _SET_ATTEMPT, *rows)


class Ending:
    """The writes of a run's end, as a callable for the run log; afterwards `next_run_id` names the run that follows."""

    def __init__(self, conclusion: RunConclusion) -> None:
        self._conclusion = conclusion
        self.next_run_id = ""

    def __call__(self, connection: Connection, batch: Sealed) -> None:
        """Do it, in the transaction of the terminal event."""
        now = now_micros()
        self._end_run(connection, batch, now)
        self._insert_messages(connection, batch, now)
        archive.insert(connection, batch.live.run_id, batch.unarchived)
        self.next_run_id = _pass_on(connection, batch, now)

    def _end_run(self, connection: Connection, batch: Sealed, now: int) -> None:
        ended = {
            "of_run": batch.live.run_id,
            "end_state": self._conclusion.end.state,
            "now": now,
            "final_seq": batch.events[-1].seq,
            "final_usage": dump(USAGE, self._conclusion.usage),
            "final_end": dump(END, self._conclusion.end),
            "final_text": self._conclusion.output_text,
            "final_json": self._conclusion.output_json,
        }
        write(connection, _END, ended)

    def _insert_messages(self, connection: Connection, batch: Sealed, now: int) -> None:
        if not self._conclusion.items:
            return
        position = first(connection, _POSITION, {"of_run": batch.live.run_id})
        rows = [
            {
                "message_id": finished.message_id,
                "user_id": batch.live.user_id,
                "conversation_id": batch.live.conversation_id,
                "run_id": batch.live.run_id,
                "run_position": position[0] if position else None,
                "ordinal": ordinal,
                "create_time": now,
                "incomplete": finished.incomplete,
                "item_json": dump(ITEM, finished.item),
            }
            for ordinal, finished in enumerate(self._conclusion.items, 1)
        ]
        write(connection, _INSERT_MESSAGES, *rows)
        items = [finished.item for finished in self._conclusion.items]
        search.add_messages(connection, batch.live.user_id, batch.live.conversation_id, items)


def _pass_on(connection: Connection, batch: Sealed, now: int) -> str:
    """Make the conversation's next waiting run its active one, if the ended run was that; return its id."""
    of_conversation = {"of_conversation": batch.live.conversation_id}
    active = first(connection, _ACTIVE, of_conversation)
    if active is None or active[0] != batch.live.run_id:
        return ""
    waiting = first(connection, _NEXT, of_conversation)
    next_run_id = None if waiting is None else cast("str", waiting[0])
    set_active_run(connection, batch.live.conversation_id, next_run_id, now)
    return next_run_id or ""
