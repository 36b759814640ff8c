"""No read of a user's data goes through a whole table, or sorts all it found: as the engines' planners say."""

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

import pytest
from contract.storage.conftest import context_for
from contract.storage.engines import Engine, PostgresEngine
from contract.storage.test_recorded_calls import played
from contract.storage.test_repositories import answer, spec
from contract.storage.test_stored_approvals import suspended
from parley_server.domain.approval import ApprovalState
from parley_server.domain.audit import AuditEntry
from parley_server.domain.errors import NotFoundError
from parley_server.domain.run import RunState
from parley_server.domain.run_event import RunStarted
from parley_server.domain.tool import ToolCallStatus
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.storage.audit_log import AuditFilter
from parley_server.storage.page import PageRequest
from parley_server.storage.repositories import ApprovalFilter, RunFilter, ToolCallFilter, UserStore
from parley_server.storage.sql.acting import OPERATOR, Acting
from parley_server.storage.sql.database import Database, Row
from parley_server.storage.sql.store import SqlStore, open_store
from postgres_server import session_on
from sqlalchemy import ClauseElement, Connection, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

T = TypeVar("T")

# With few rows PostgreSQL does without an index; told not to, it does so only where there is no other way.
UNWANTED = ("enable_seqscan", "enable_sort")
WASTE = re.compile(
    r"^SCAN (?!(?:main\.)?search_texts VIRTUAL)|TEMP B-TREE|AUTOMATIC|Seq Scan|\bSort\b(?! Key| Method)|Materialize"
)
PAGE = PageRequest(2)
FILTERS = (
    RunFilter(),
    RunFilter(states=(RunState.SUCCEEDED, RunState.FAILED)),
    RunFilter(agent_id="assistant"),
    RunFilter(labels=(("a", "b"), ("c", "d"))),
)


class Explanation(ClauseElement):
    """The plan of a statement."""

    inherit_cache = False

    def __init__(self, statement: ClauseElement) -> None:
        self.statement = statement


@compiles(Explanation, "sqlite")
def _on_sqlite(element: Explanation, compiler: SQLCompiler, **options: object) -> str:
    return f"EXPLAIN QUERY PLAN {compiler.process(element.statement, **options)}"


@compiles(Explanation, "postgresql")
def _on_postgresql(element: Explanation, compiler: SQLCompiler, **options: object) -> str:
    return f"EXPLAIN {compiler.process(element.statement, **options)}"


class ExplainedDatabase:
    """Implements `Database` over another one, and keeps the plan of every read."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.scrub = database.scrub
        self.plans: list[list[str]] = []

    async def transaction(self, tx: Callable[[Connection], T]) -> T:
        return await self._database.transaction(tx)

    async def fetch(
        self, statement: ClauseElement, parameters: Mapping[str, object] | None = None, acting: Acting = OPERATOR
    ) -> Sequence[Row]:
        rows = await self._database.fetch(Explanation(statement), parameters, acting)
        # Both drivers' rows iterate over their values; what is said of a step is the last, or the only one.
        self.plans.append([str([*row][-1]) for row in rows])
        return await self._database.fetch(statement, parameters, acting)


@pytest.fixture
async def explained(engine: Engine) -> AsyncIterator[ExplainedDatabase]:
    if isinstance(engine, PostgresEngine):
        async with session_on(engine.url) as session:
            name = await session.fetchval("SELECT current_database()")
            for setting in UNWANTED:
                await session.execute(f'ALTER DATABASE "{name}" SET {setting} = off')
    async with engine.open() as database:
        yield ExplainedDatabase(database)


async def read_all(store: SqlStore) -> None:
    """Read everything a user can, and what retention and the log read by themselves."""
    mine = store.for_user(context_for("ann"))
    accepted = [(await mine.runs.accept(spec("some words"), None)).run for _ in range(4)]
    for run in accepted:
        pen = store.worker.appender(run.run_id)
        await pen.begin(RunStarted("m"))
        await pen.finish(answer(run.run_id))
    run = accepted[0]
    await mine.account.get()
    await store.accounts.defaults_of("ann")
    await mine.runs.get(run.run_id)
    for run_filter in (*FILTERS, RunFilter(conversation_id=run.conversation_id, states=(RunState.SUCCEEDED,))):
        first = await mine.runs.list(run_filter, PageRequest(1))
        await mine.runs.list(run_filter, PageRequest(2, first.next_token))
    await mine.conversations.get(run.conversation_id)
    for query in ("", "some wor"):
        page = await mine.conversations.list(PAGE, query)
        assert page.next_token
        await mine.conversations.list(PageRequest(2, page.next_token), query)
    await mine.conversations.messages(run.conversation_id, PAGE)
    await mine.conversations.history(run.conversation_id, run.run_id)
    await read_calls(store, mine)
    await read_approvals(store, mine)
    await mine.notes.add("some words")
    for query in ("", "some wor"):
        assert len(await mine.notes.find(query)) == 1
    await store.api_keys.find("none")
    await store.retention.adopt_ttl()
    await store.retention.fold(datetime.now(UTC))


async def read_calls(store: SqlStore, mine: UserStore) -> None:
    """Read what of tool calls a user can."""
    ok, in_doubt = ToolCallStatus.OK, ToolCallStatus.UNKNOWN_OUTCOME
    run = await played(store, context_for("ann"), ok, in_doubt, in_doubt)
    for call_filter in (
        ToolCallFilter(),
        ToolCallFilter(unresolved=True),
        ToolCallFilter(statuses=(ok, in_doubt)),
        ToolCallFilter(conversation_id=run.conversation_id),
        ToolCallFilter(run_id=run.run_id),
        ToolCallFilter(run.conversation_id, run.run_id, (in_doubt,), unresolved=True),
    ):
        first = await mine.tool_calls.list(call_filter, PageRequest(1))
        assert first.next_token
        await mine.tool_calls.list(call_filter, PageRequest(1, first.next_token))
    for read in (
        mine.tool_calls.result_piece("result_0", 0, 1),
        mine.tool_calls.result_for_run("result_0", run.run_id),
    ):
        with pytest.raises(NotFoundError):
            await read


async def read_approvals(store: SqlStore, mine: UserStore) -> None:
    """Read what a user can of what he is asked."""
    run, [approval, _] = await suspended(store, context_for("ann"), 2)
    for approval_filter in (
        ApprovalFilter(),
        ApprovalFilter(states=(ApprovalState.PENDING, ApprovalState.DENIED)),
        ApprovalFilter(conversation_id=run.conversation_id),
        ApprovalFilter(run_id=run.run_id),
        ApprovalFilter((ApprovalState.PENDING,), run.conversation_id, run.run_id),
    ):
        first = await mine.approvals.list(approval_filter, PageRequest(1))
        assert first.next_token
        await mine.approvals.list(approval_filter, PageRequest(1, first.next_token))
    await mine.approvals.get(approval.approval_id)
    await mine.approvals.remembered(run.conversation_id, "book", "")


async def read_audit_log(store: SqlStore) -> None:
    """Read the audit log of one user, and of one who did something."""
    await store.audit.record_all([AuditEntry(datetime.now(UTC), "x", principal="user:ann", user_id="ann")] * 3)
    for only in (AuditFilter(user_id="ann"), AuditFilter(principal="user:ann")):
        first = await store.audit.list(PAGE, only)
        assert (await store.audit.list(PageRequest(2, first.next_token), only)).items


async def test_every_read_goes_by_an_index(explained: ExplainedDatabase) -> None:
    async with open_store(explained, ProtoEventCodec(), b"page token key") as store:
        await read_all(store)
        await read_audit_log(store)
    wasteful = [plan for plan in explained.plans if any(map(WASTE.search, plan))]
    assert not wasteful
    assert len(explained.plans) > 20


async def test_what_goes_by_none_is_seen(explained: ExplainedDatabase) -> None:
    for statement in ("SELECT * FROM messages WHERE incomplete", "SELECT run_id FROM runs ORDER BY usage_json"):
        await explained.fetch(text(statement))
    assert all(any(map(WASTE.search, plan)) for plan in explained.plans)
