"""Statements that all forgot whose rows they are about: the wall behind them shows and changes nothing of another's."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import pytest
from contract.storage.conftest import context_for
from contract.storage.engines import Engine, PostgresEngine
from contract.storage.test_repositories import spec
from contract.storage.test_stored_approvals import suspended
from contract.storage.test_tool_results import run_with_result
from contract.storage.walled_rows import OWNED
from parley_server.domain.approval import ApprovalAnswer
from parley_server.domain.conversation import ConversationChanges
from parley_server.domain.errors import NotFoundError
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.storage.page import Page, PageRequest
from parley_server.storage.repositories import ApprovalFilter, RunFilter, ToolCallFilter, UserStore
from parley_server.storage.sql import conversations
from parley_server.storage.sql.acting import ADMINISTRATION, OPERATOR, Acting
from parley_server.storage.sql.database import Database, Row
from parley_server.storage.sql.store import SqlStore, open_store
from sqlalchemy import BinaryExpression, ClauseElement, Column, Connection, Executable, event, true
from sqlalchemy import Engine as SqlEngine
from sqlalchemy.sql.visitors import ExternallyTraversible, replacement_traverse

T = TypeVar("T")
PAGE = PageRequest(50)
EVERYTHING = "SELECT * FROM {} ORDER BY 1, 2"


def _forget(element: ExternallyTraversible, **_: object) -> ExternallyTraversible | None:
    asks = isinstance(element, BinaryExpression) and isinstance(element.left, Column) and element.left.name == "user_id"
    return true() if asks else None


def forgetful(statement: ClauseElement) -> ClauseElement:
    """Return a statement without any condition on a user."""
    spoiled = replacement_traverse(statement, {}, _forget)
    assert isinstance(spoiled, ClauseElement)
    return spoiled


class ForgetfulDatabase:
    """Implements `Database` over another one, whose reads forget."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def transaction(self, tx: Callable[[Connection], T]) -> T:
        return await self._database.transaction(tx)

    async def scrub(self, *, is_thorough: bool = False) -> None:
        await self._database.scrub(is_thorough=is_thorough)

    async def fetch(
        self, statement: ClauseElement, parameters: Mapping[str, object] | None = None, acting: Acting = OPERATOR
    ) -> Sequence[Row]:
        return await self._database.fetch(forgetful(statement), parameters, acting)


@contextmanager
def forgetful_writes() -> Iterator[None]:
    """Let all that is executed by SQLAlchemy forget, too."""

    def spoil(
        _connection: object, statement: Executable, many: object, parameters: object, _options: object
    ) -> tuple[object, object, object]:
        return forgetful(statement) if isinstance(statement, ClauseElement) else statement, many, parameters

    event.listen(SqlEngine, "before_execute", spoil, retval=True)
    try:
        yield
    finally:
        event.remove(SqlEngine, "before_execute", spoil)


class World:
    """What ann has: a conversation with a run and its large result, a question, a note."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.bob = store.for_user(context_for("bob"))

    async def fill(self) -> None:
        ann = context_for("ann")
        self.run = await run_with_result(self.store, ann)
        self.conversation_id = self.run.conversation_id
        self.asking, [self.approval] = await suspended(self.store, ann)
        self.note = await self.store.for_user(ann).notes.add("hello there")


@pytest.fixture
async def world(engine: Engine) -> AsyncIterator[World]:
    async with engine.open() as database, open_store(ForgetfulDatabase(database), ProtoEventCodec(), b"key") as store:
        made = World(store)
        await made.fill()
        yield made


async def watched(bob: UserStore, run_id: str) -> list[object]:
    return [batch async for batch in bob.runs.watch(run_id, 0)]


READS: Mapping[str, Callable[[World], Awaitable[object]]] = {
    "a conversation": lambda world: world.bob.conversations.get(world.conversation_id),
    "conversations": lambda world: world.bob.conversations.list(PAGE),
    "found conversations": lambda world: world.bob.conversations.list(PAGE, "much"),
    "messages": lambda world: world.bob.conversations.messages(world.conversation_id, PAGE),
    "history": lambda world: world.bob.conversations.history(world.conversation_id, world.run.run_id),
    "a run": lambda world: world.bob.runs.get(world.run.run_id),
    "runs": lambda world: world.bob.runs.list(RunFilter(), PAGE),
    "runs of a conversation": lambda world: world.bob.runs.list(RunFilter(world.conversation_id), PAGE),
    "a log": lambda world: watched(world.bob, world.run.run_id),
    "an approval": lambda world: world.bob.approvals.get(world.approval.approval_id),
    "approvals": lambda world: world.bob.approvals.list(ApprovalFilter(), PAGE),
    "calls": lambda world: world.bob.tool_calls.list(ToolCallFilter(), PAGE),
    "a result": lambda world: world.bob.tool_calls.result_piece("result_1", 0, 100),
    "a run's result": lambda world: world.bob.tool_calls.result_for_run("result_1", world.run.run_id),
    "notes": lambda world: world.bob.notes.find(),
    "found notes": lambda world: world.bob.notes.find("hello"),
}
WRITES: Mapping[str, Callable[[World], Awaitable[object]]] = {
    "an update": lambda world: world.bob.conversations.update(world.conversation_id, ConversationChanges(title="mine")),
    "a deletion": lambda world: world.bob.conversations.delete(world.conversation_id),
    "a fork": lambda world: world.bob.conversations.fork(world.conversation_id),
    "a run": lambda world: world.bob.runs.accept(spec("mine", world.conversation_id), None),
    "an answer": lambda world: world.bob.approvals.decide(world.approval.approval_id, ApprovalAnswer(True)),
    "a note's deletion": lambda world: world.bob.notes.delete(world.note.note_id),
    "the deletion of all notes": lambda world: world.bob.notes.delete_all(),
}


async def outcome(work: Awaitable[object]) -> object:
    """Return what somebody got to see, None for nothing."""
    try:
        seen = await work
    except NotFoundError:
        return None
    return (seen.items if isinstance(seen, Page) else seen) or None


async def test_reads_that_forget_the_user_show_nothing_of_anothers(world: World) -> None:
    assert {name: await outcome(read(world)) for name, read in READS.items()} == dict.fromkeys(READS)


async def test_writes_that_forget_the_user_change_nothing_of_anothers(world: World, engine: Engine) -> None:
    if not isinstance(engine, PostgresEngine):
        pytest.skip("SQLite's one writer has no second wall; see ADR 16")
    before = [await engine.rows(EVERYTHING.format(table)) for table in OWNED]
    with forgetful_writes():
        assert {name: await outcome(write(world)) for name, write in WRITES.items()} == dict.fromkeys(WRITES)
    assert [await engine.rows(EVERYTHING.format(table)) for table in OWNED] == before


async def test_without_the_wall_they_would(world: World, engine: Engine) -> None:
    """What is seen above is the wall's doing, and no statement's that was not spoiled."""
    async with engine.open() as database:
        parameters = {"conversation_id": world.conversation_id, "user_id": "bob", "now": 0}
        statement = conversations._GET  # one of those that are spoiled
        assert not await database.fetch(statement, parameters, ADMINISTRATION)
        assert len(await ForgetfulDatabase(database).fetch(statement, parameters, ADMINISTRATION)) == 1
