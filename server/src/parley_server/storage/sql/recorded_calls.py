"""The calls in a user's runs, and their large results, on any engine."""

from typing import cast

from sqlalchemy import Connection, bindparam

from parley_server.domain.context import RequestContext
from parley_server.domain.errors import NotFoundError
from parley_server.domain.message import ToolCallItem
from parley_server.domain.recorded_call import RecordedCall
from parley_server.domain.resolution import CallOutcome
from parley_server.domain.tool import ToolCallStatus
from parley_server.domain.whole_result import MAX_WHOLE_BYTES, ResultPiece
from parley_server.storage.page import Page, PageRequest
from parley_server.storage.page_tokens import PageTokens
from parley_server.storage.repositories import ToolCallFilter
from parley_server.storage.sql import resolutions, tool_results
from parley_server.storage.sql.call_listing import CALLS, filter_parameters, listing, place_parameters
from parley_server.storage.sql.clock import now_micros
from parley_server.storage.sql.database import Reader, Row, from_micros
from parley_server.storage.sql.own_filters import require_own
from parley_server.storage.sql.paging import fitting
from parley_server.storage.sql.rows import blob, item_of, moment, number, string
from parley_server.storage.sql.tables import tool_calls
from parley_server.storage.sql.tool_calls import record_of
from parley_server.storage.sql.user_writer import UserWriter

_GET = CALLS.where(tool_calls.c.run_id == bindparam("run_id"), tool_calls.c.call_id == bindparam("call_id"))


class SqlToolCallRepository:
    """Implements `ToolCallRepository` for one user."""

    def __init__(self, context: RequestContext, reader: Reader, writes: UserWriter, tokens: PageTokens) -> None:
        self._context = context
        self._reader = reader
        self._writes = writes
        self._tokens = tokens

    async def list(self, call_filter: ToolCallFilter, page: PageRequest) -> Page[RecordedCall]:
        """List, the newest first; see `ToolCallRepository.list`."""
        named = {"conversation_id": call_filter.conversation_id, "run_id": call_filter.run_id}
        await require_own(self._reader, self._context.user_id, **named)
        name = ("tool_calls", self._context.user_id, repr(call_filter))
        before = self._tokens.read(name, page.token)
        parameters = self._own | {"limit": page.size + 1} | filter_parameters(call_filter)
        if before:
            parameters |= place_parameters(call_filter, *before.split(" "))
        rows = await self._reader.fetch(listing(call_filter, is_first=not before), parameters)
        taken = fitting(rows, page.size, ("item_json",))
        items = tuple(_call_of(row) for row in rows[:taken])
        if taken == len(rows):
            return Page(items, "")
        return Page(items, self._tokens.issue(name, f"{items[-1].run_id} {items[-1].record.call_id}"))

    async def resolve(self, run_id: str, call_id: str, outcome: CallOutcome, note: str) -> RecordedCall:
        """Settle a call in doubt; see `ToolCallRepository.resolve`."""

        def tx(connection: Connection) -> None:
            resolutions.resolve(connection, self._context, (run_id, call_id), outcome, note, now_micros())

        await self._writes.run(tx)
        rows = await self._reader.fetch(_GET, self._own | {"run_id": run_id, "call_id": call_id})
        if not rows:
            raise NotFoundError("tool_call")
        return _call_of(rows[0])

    async def result_piece(self, result_id: str, offset: int, max_bytes: int) -> ResultPiece:
        """Return a piece of a whole result; see `ToolCallRepository.result_piece`."""
        # No engine is asked for more than it can count.
        start = min(offset, MAX_WHOLE_BYTES) + 1
        place = {"result_id": result_id, "start": start, "max_bytes": min(max_bytes, MAX_WHOLE_BYTES)}
        rows = await self._reader.fetch(tool_results.PIECE, self._own | place)
        if not rows:
            raise NotFoundError("tool_result")
        return ResultPiece(blob(rows[0], "content"), number(rows[0], "total_bytes"))

    async def result_for_run(self, result_id: str, run_id: str) -> str:
        """Return a whole result; see `ToolCallRepository.result_for_run`."""
        rows = await self._reader.fetch(tool_results.FOR_RUN, self._own | {"result_id": result_id, "run_id": run_id})
        if not rows:
            raise NotFoundError("tool_result")
        return blob(rows[0], "content").decode()

    @property
    def _own(self) -> dict[str, object]:
        return {"user_id": self._context.user_id, "now": now_micros()}


def _call_of(row: Row) -> RecordedCall:
    status = string(row, "status")
    return RecordedCall(
        run_id=string(row, "run_id"),
        conversation_id=string(row, "conversation_id"),
        record=record_of(row),
        create_time=from_micros(number(row, "plan_time")),
        dispatch_time=moment(row, "dispatch_time"),
        finish_time=moment(row, "finish_time"),
        status=ToolCallStatus(status) if status else None,
        error_code=string(row, "error_code"),
        item=cast("ToolCallItem", item_of(row)) if row["item_json"] else None,
        resolution=resolutions.resolution_of(row),
    )
