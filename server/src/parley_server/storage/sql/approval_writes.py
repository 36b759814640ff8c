"""What is written of approvals: when a run begins to wait, when one is answered or expires, and when the run ends."""

from collections.abc import Iterable, Sequence

from sqlalchemy import BindParameter, Connection, bindparam, case, exists, insert, select, text, update

from parley_server.domain.approval import Approval, ApprovalAnswer, ApprovalState, Confirmation, Remember
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import NotFoundError
from parley_server.domain.run import RunState
from parley_server.domain.run_event import ApprovalResolved, ItemEvent
from parley_server.domain.tool import ToolEffect
from parley_server.storage.sql.clock import now_micros
from parley_server.storage.sql.database import Row, from_micros, to_micros
from parley_server.storage.sql.expiry import is_alive
from parley_server.storage.sql.live_run import Sealed, Tx
from parley_server.storage.sql.rows import moment, number, string
from parley_server.storage.sql.statements import write
from parley_server.storage.sql.tables import approvals, conversations, remembered_approvals, runs

_COLUMNS = tuple(column.name for column in approvals.c)
# A commit whose outcome nobody heard is tried again.
_INSERT = text(
    f"INSERT INTO approvals ({', '.join(_COLUMNS)}) "  # noqa: S608  # names of ours
    f"VALUES ({', '.join(f':{name}' for name in _COLUMNS)}) ON CONFLICT DO NOTHING"
)
OF_LIVING_CONVERSATION = exists().where(conversations.c.conversation_id == approvals.c.conversation_id, is_alive())
GET = select(approvals).where(
    approvals.c.user_id == bindparam("user_id"),
    approvals.c.approval_id == bindparam("approval_id"),
    OF_LIVING_CONVERSATION,
)
_SETTLE = (
    update(approvals)
    .where(approvals.c.approval_id == bindparam("of_approval"), approvals.c.state == ApprovalState.PENDING)
    .values(
        state=bindparam("new_state"),
        decide_time=bindparam("now", type_=approvals.c.decide_time.type),
        decider=bindparam("by"),
        reason=bindparam("why"),
        remember=bindparam("for_how_long"),
    )
)
_TARGET: BindParameter[str] = bindparam("new_state", type_=runs.c.state.type)
_MOVE = (
    update(runs)
    .where(runs.c.run_id == bindparam("of_run"))
    .values(state=case((runs.c.state == bindparam("old_state"), _TARGET), else_=runs.c.state))
)
_OF_UNFINISHED_RUNS = select(approvals).join(runs).where(runs.c.finish_time.is_(None)).order_by(approvals.c.approval_id)


def suspension(asked: Sequence[Approval]) -> Tx:
    """Return the write with which a run begins to wait for these approvals."""

    def tx(connection: Connection, batch: Sealed) -> None:
        write(connection, _INSERT, *map(_row_of, asked))
        _move(connection, batch, RunState.RUNNING, RunState.WAITING_APPROVAL)

    return tx


def resumption(connection: Connection, batch: Sealed) -> None:
    """Set a run that waited RUNNING, unless it is to end."""
    _move(connection, batch, RunState.WAITING_APPROVAL, RunState.RUNNING)


def cancellations_of(events: Iterable[ItemEvent]) -> list[Tx]:
    """Return the writes for approvals that a run ends without."""
    cancelled = [
        body.approval_id
        for body, _ in events
        if isinstance(body, ApprovalResolved) and body.state is ApprovalState.CANCELLED
    ]
    if not cancelled:
        return []

    def tx(connection: Connection, _batch: Sealed) -> None:
        write(connection, _SETTLE, *(_settled(each, ApprovalState.CANCELLED, now_micros()) for each in cancelled))

    return [tx]


class Deciding:
    """The transaction that takes an answer, as a callable for the writer; it returns the approval as it stands then."""

    def __init__(self, context: RequestContext, approval_id: str, answer: ApprovalAnswer) -> None:
        self._context = context
        self._approval_id = approval_id
        self._answer = answer

    def __call__(self, connection: Connection) -> Approval:
        """Do it. Raises NotFoundError."""
        now = now_micros()
        approval = self._read(connection, now)
        if not approval.is_pending:
            return approval
        if to_micros(approval.expire_time) <= now:
            write(connection, _SETTLE, _settled(self._approval_id, ApprovalState.EXPIRED, now))
        else:
            write(connection, _SETTLE, self._answered(now))
            if self._answer.remember is Remember.CONVERSATION:
                self._remember(connection, approval, now)
        return self._read(connection, now)

    def _read(self, connection: Connection, now: int) -> Approval:
        own = {"user_id": self._context.user_id, "approval_id": self._approval_id, "now": now}
        row = connection.execute(GET, own).mappings().first()
        if row is None:
            raise NotFoundError("approval")
        return approval_of(dict(row))

    def _answered(self, now: int) -> dict[str, object]:
        settled = _settled(self._approval_id, self._answer.state, now)
        by = self._context.actor
        return {**settled, "by": by, "why": self._answer.reason, "for_how_long": self._answer.remember}

    def _remember(self, connection: Connection, approval: Approval, now: int) -> None:
        """Keep the answer; a later one takes the place of an earlier one."""
        key = {
            "conversation_id": approval.conversation_id,
            "user_id": approval.user_id,
            "tool_name": approval.tool_name,
            "spec_hash": approval.spec_hash,
        }
        kept = {"is_approved": self._answer.is_approved, "create_time": now}
        of_key = [remembered_approvals.c[name] == value for name, value in key.items()]
        if not connection.execute(update(remembered_approvals).where(*of_key).values(**kept)).rowcount:
            connection.execute(insert(remembered_approvals).values(**key, **kept))


def expire(connection: Connection, approval_ids: Sequence[str]) -> tuple[Approval, ...]:
    """Set those that are pending EXPIRED; return all of them as they stand then."""
    write(connection, _SETTLE, *(_settled(each, ApprovalState.EXPIRED, now_micros()) for each in approval_ids))
    rows = connection.execute(select(approvals).where(approvals.c.approval_id.in_(approval_ids))).mappings()
    return tuple(approval_of(dict(row)) for row in rows)


def of_unfinished_runs(connection: Connection) -> Iterable[Approval]:
    """Return all approvals of runs that have not ended, oldest first."""
    return [approval_of(dict(row)) for row in connection.execute(_OF_UNFINISHED_RUNS).mappings()]


def approval_of(row: Row) -> Approval:
    """Read a row of `approvals`."""
    return Approval(
        approval_id=string(row, "approval_id"),
        user_id=string(row, "user_id"),
        conversation_id=string(row, "conversation_id"),
        run_id=string(row, "run_id"),
        call_id=string(row, "call_id"),
        tool_name=string(row, "tool_name"),
        tool_description=string(row, "tool_description"),
        effect=ToolEffect(string(row, "effect")),
        arguments_json=string(row, "arguments_json"),
        fingerprint=string(row, "fingerprint"),
        spec_hash=string(row, "spec_hash"),
        create_time=from_micros(number(row, "create_time")),
        expire_time=from_micros(number(row, "expire_time")),
        state=ApprovalState(string(row, "state")),
        decide_time=moment(row, "decide_time"),
        decider=string(row, "decider"),
        reason=string(row, "reason"),
        remember=Remember(string(row, "remember")) if row["remember"] else None,
        confirmation=_confirmation_of(row),
    )


def _confirmation_of(row: Row) -> Confirmation | None:
    question = string(row, "question")
    return Confirmation(question, string(row, "question_state")) if question else None


def _row_of(approval: Approval) -> dict[str, object]:
    return {
        "approval_id": approval.approval_id,
        "user_id": approval.user_id,
        "conversation_id": approval.conversation_id,
        "run_id": approval.run_id,
        "call_id": approval.call_id,
        "tool_name": approval.tool_name,
        "tool_description": approval.tool_description,
        "effect": approval.effect,
        "arguments_json": approval.arguments_json,
        "fingerprint": approval.fingerprint,
        "spec_hash": approval.spec_hash,
        "question": approval.question,
        "question_state": "" if approval.confirmation is None else approval.confirmation.state,
        "state": approval.state,
        "create_time": to_micros(approval.create_time),
        "expire_time": to_micros(approval.expire_time),
        "decide_time": None,
        "decider": None,
        "reason": "",
        "remember": None,
    }


def _settled(approval_id: str, state: ApprovalState, now: int) -> dict[str, object]:
    return {"of_approval": approval_id, "new_state": state, "now": now, "by": None, "why": "", "for_how_long": None}


def _move(connection: Connection, batch: Sealed, start: RunState, target: RunState) -> None:
    write(connection, _MOVE, {"of_run": batch.live.run_id, "old_state": start, "new_state": target})
