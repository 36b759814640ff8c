"""What a user is, and was, asked before tools are called; on any engine."""

from collections.abc import Sequence
from functools import lru_cache

from sqlalchemy import ColumnElement, Select, bindparam, select

from parley_server.domain.approval import Approval, ApprovalAnswer
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import NotFoundError
from parley_server.storage.page import Page, PageRequest
from parley_server.storage.page_tokens import PageTokens
from parley_server.storage.repositories import ApprovalFilter
from parley_server.storage.sql.approval_writes import GET, OF_LIVING_CONVERSATION, Deciding, approval_of
from parley_server.storage.sql.clock import now_micros
from parley_server.storage.sql.database import Reader, Row
from parley_server.storage.sql.own_filters import require_own
from parley_server.storage.sql.paging import fitting
from parley_server.storage.sql.tables import approvals, remembered_approvals
from parley_server.storage.sql.user_writer import UserWriter

_SIZED = ("arguments_json", "tool_description", "question", "reason")
_REMEMBERED = select(remembered_approvals.c.is_approved).where(
    remembered_approvals.c.conversation_id == bindparam("conversation_id"),
    remembered_approvals.c.user_id == bindparam("user_id"),
    remembered_approvals.c.tool_name == bindparam("tool_name"),
    remembered_approvals.c.spec_hash == bindparam("spec_hash"),
)


class SqlApprovalRepository:
    """Implements `ApprovalRepository` for one user."""

    def __init__(self, context: RequestContext, reader: Reader, writes: UserWriter, tokens: PageTokens) -> None:
        self._context = context
        self._reader = reader
        self._writes = writes
        self._tokens = tokens

    async def get(self, approval_id: str) -> Approval:
        """Return one; see `ApprovalRepository.get`."""
        rows = await self._fetch(GET, approval_id=approval_id, now=now_micros())
        if not rows:
            raise NotFoundError("approval")
        return approval_of(rows[0])

    async def list(self, approval_filter: ApprovalFilter, page: PageRequest) -> Page[Approval]:
        """List, the newest first; see `ApprovalRepository.list`."""
        named = {"conversation_id": approval_filter.conversation_id, "run_id": approval_filter.run_id}
        await require_own(self._reader, self._context.user_id, **named)
        name = ("approvals", self._context.user_id, repr(approval_filter))
        before = self._tokens.read(name, page.token)
        statement = _listing(approval_filter, is_first=not before)
        rows = await self._fetch(
            statement, **_parameters(approval_filter, before), now=now_micros(), limit=page.size + 1
        )
        taken = fitting(rows, page.size, _SIZED)
        items = tuple(approval_of(row) for row in rows[:taken])
        return Page(items, self._tokens.issue(name, items[-1].approval_id) if len(rows) > taken else "")

    async def decide(self, approval_id: str, answer: ApprovalAnswer) -> Approval:
        """Answer one; see `ApprovalRepository.decide`."""
        return await self._writes.run(Deciding(self._context, approval_id, answer), patient=True)

    async def remembered(self, conversation_id: str, tool_name: str, spec_hash: str) -> bool | None:
        """Return the answer that holds; see `ApprovalRepository.remembered`."""
        rows = await self._fetch(_REMEMBERED, conversation_id=conversation_id, tool_name=tool_name, spec_hash=spec_hash)
        return bool(rows[0]["is_approved"]) if rows else None

    async def _fetch(self, statement: Select[tuple[object, ...]], **parameters: object) -> Sequence[Row]:
        return await self._reader.fetch(statement, {"user_id": self._context.user_id, **parameters})


def _parameters(approval_filter: ApprovalFilter, before: str) -> dict[str, object]:
    named = {
        "conversation_id": approval_filter.conversation_id,
        "run_id": approval_filter.run_id,
        "before": before,
        **{f"state_{place}": state for place, state in enumerate(approval_filter.states)},
    }
    return {name: value for name, value in named.items() if value}


def _listing(approval_filter: ApprovalFilter, *, is_first: bool) -> Select[tuple[object, ...]]:
    return _made(
        bool(approval_filter.conversation_id), bool(approval_filter.run_id), len(approval_filter.states), is_first
    )


@lru_cache(maxsize=64)
def _made(of_conversation: bool, of_run: bool, states: int, is_first: bool) -> Select[tuple[object, ...]]:
    """Make the statement, once for every kind of filter."""
    conditions: list[ColumnElement[bool]] = [approvals.c.user_id == bindparam("user_id"), OF_LIVING_CONVERSATION]
    if of_conversation:
        conditions.append(approvals.c.conversation_id == bindparam("conversation_id"))
    if of_run:
        conditions.append(approvals.c.run_id == bindparam("run_id"))
    if states:
        conditions.append(approvals.c.state.in_([bindparam(f"state_{place}") for place in range(states)]))
    if not is_first:
        conditions.append(approvals.c.approval_id < bindparam("before"))
    return select(approvals).where(*conditions).order_by(approvals.c.approval_id.desc()).limit(bindparam("limit"))
