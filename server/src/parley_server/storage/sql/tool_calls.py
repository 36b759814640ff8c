"""The journal of effects: the writes that go with a run's tool calls, each in the transaction of its events."""

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, bindparam, select, text, update

from parley_server.domain.run_event import ItemEvent, ToolCallFinished
from parley_server.domain.tool import CallRecord, CallState, ToolEffect
from parley_server.storage.sql import tool_results
from parley_server.storage.sql.clock import now_micros
from parley_server.storage.sql.database import Row
from parley_server.storage.sql.live_run import Sealed, Tx
from parley_server.storage.sql.rows import string
from parley_server.storage.sql.statements import write
from parley_server.storage.sql.tables import runs, tool_calls

# A commit whose outcome nobody heard is tried again.
_INSERT = text(
    "INSERT INTO tool_calls (run_id, call_id, item_id, user_id, conversation_id, name, effect, fingerprint, "
    "idempotency_key, state, plan_time, dispatch_time) VALUES (:run_id, :call_id, :item_id, :user_id, "
    ":conversation_id, :name, :effect, :fingerprint, :idempotency_key, :state, :plan_time, :dispatch_time) "
    "ON CONFLICT DO NOTHING"
)
_OF_CALL = (tool_calls.c.run_id == bindparam("of_run"), tool_calls.c.call_id == bindparam("of_call"))
_MOVE = (
    update(tool_calls)
    .where(*_OF_CALL)
    .values(state=bindparam("new_state"), dispatch_time=bindparam("now", type_=tool_calls.c.dispatch_time.type))
)
_FINISH = (
    update(tool_calls)
    .where(*_OF_CALL)
    .values(
        state=bindparam("new_state"),
        status=bindparam("new_status"),
        error_code=bindparam("new_error_code"),
        finish_time=bindparam("now", type_=tool_calls.c.finish_time.type),
    )
)
_OPEN = (
    select(tool_calls)
    .join(runs)
    .where(runs.c.finish_time.is_(None), tool_calls.c.state != CallState.FINISHED)
    .order_by(tool_calls.c.run_id, tool_calls.c.call_id)
)


def writes_of(events: Iterable[ItemEvent], calls: Sequence[CallRecord] = ()) -> list[Tx]:
    """Return the writes for events that are to be appended: new calls, those that are over, and large results."""
    finished = [body for body, _ in events if isinstance(body, ToolCallFinished)]
    return [
        *([_planned(calls)] if calls else []),
        *([_finished(finished)] if finished else []),
        *tool_results.stored(finished),
    ]


def dispatched(call_ids: Sequence[str]) -> Tx:
    """Return the write that sets calls DISPATCHED."""
    return _moved(call_ids, CallState.DISPATCHED)


def withdrawn(call_ids: Sequence[str]) -> Tx:
    """Return the write that sets calls PLANNED again."""
    return _moved(call_ids, CallState.PLANNED)


def _moved(call_ids: Sequence[str], state: CallState) -> Tx:
    def tx(connection: Connection, batch: Sealed) -> None:
        now = now_micros() if state is CallState.DISPATCHED else None
        moved = {"of_run": batch.live.run_id, "new_state": state, "now": now}
        write(connection, _MOVE, *({**moved, "of_call": call_id} for call_id in call_ids))

    return tx


def unanswered_calls(connection: Connection) -> Iterable[tuple[str, CallRecord]]:
    """Return the calls of unfinished runs that have no result, each with its run's id, oldest first."""
    return [(row["run_id"], record_of(dict(row))) for row in connection.execute(_OPEN).mappings()]


def _planned(calls: Sequence[CallRecord]) -> Tx:
    def tx(connection: Connection, batch: Sealed) -> None:
        now = now_micros()
        write(
            connection,
            _INSERT,
            *(
                {
                    "run_id": batch.live.run_id,
                    "call_id": call.call_id,
                    "item_id": call.item_id,
                    "user_id": batch.live.user_id,
                    "conversation_id": batch.live.conversation_id,
                    "name": call.name,
                    "effect": call.effect,
                    "fingerprint": call.fingerprint,
                    "idempotency_key": call.idempotency_key,
                    "state": call.state,
                    "plan_time": now,
                    "dispatch_time": now if call.state is CallState.DISPATCHED else None,
                }
                for call in calls
            ),
        )

    return tx


def _finished(bodies: Sequence[ToolCallFinished]) -> Tx:
    def tx(connection: Connection, batch: Sealed) -> None:
        now = now_micros()
        write(
            connection,
            _FINISH,
            *(
                {
                    "of_run": batch.live.run_id,
                    "of_call": body.call_id,
                    "new_state": CallState.FINISHED,
                    "new_status": body.status,
                    "new_error_code": body.error_code or None,
                    "now": now,
                }
                for body in bodies
            ),
        )

    return tx


def record_of(row: Row) -> CallRecord:
    """Read a row of `tool_calls`."""
    effect = string(row, "effect")
    return CallRecord(
        call_id=string(row, "call_id"),
        item_id=string(row, "item_id"),
        name=string(row, "name"),
        effect=ToolEffect(effect) if effect else None,
        state=CallState(string(row, "state")),
        fingerprint=string(row, "fingerprint"),
        idempotency_key=string(row, "idempotency_key"),
    )
