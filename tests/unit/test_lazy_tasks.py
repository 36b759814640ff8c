"""What is begun while somebody's call is served, and goes on without him, sees nothing of him.

The server has no ambient user to see (`scripts/check_caches.py` refuses a ContextVar); a library's or a tool's may be
there all the same, and stands for one here.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path

import pytest
from contract.recovery.recovering import an_engine
from contract.storage.conftest import context_for
from contract.storage.test_repositories import spec
from mcp.client._transport import TransportStreams
from parley_server.auth.last_use import LastUses
from parley_server.domain.context import RequestContext
from parley_server.domain.per_user import UserKey
from parley_server.llm.model_service import FinishChunk, FinishReason, ModelChunk, ModelRequest, TextChunk
from parley_server.llm.opening import Opening
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.store import open_store
from parley_server.tools.errors import ToolError
from parley_server.tools.mcp.client import McpClient
from parley_server.tools.mcp.clients import Clients
from unit.tools.user_context import context_of

WHO: ContextVar[str] = ContextVar("who")
NOBODY = "nobody"


@pytest.fixture(autouse=True)
def ann_calls() -> Iterator[None]:
    token = WHO.set("ann")
    yield
    WHO.reset(token)


class Model:
    """Notes whom it sees."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def stream(self, context: RequestContext, request: ModelRequest) -> AsyncGenerator[ModelChunk]:  # noqa: ARG002
        self.seen.append(WHO.get(NOBODY))
        yield TextChunk("fine")
        yield FinishChunk(FinishReason.STOP)

    async def aclose(self) -> None:
        """Nothing to close."""


class Unreachable:
    """A transport to a server that is not there; notes for whom it is opened."""

    def __init__(self, seen: list[str]) -> None:
        self._seen = seen

    async def __aenter__(self) -> TransportStreams:
        self._seen.append(WHO.get(NOBODY))
        raise OSError

    async def __aexit__(self, *_: object) -> None:
        """It was never entered."""


async def test_a_run_sees_nothing_of_the_call_that_started_it(tmp_path: Path) -> None:
    model, ann = Model(), context_for("ann")
    async with (
        SqliteDatabase(tmp_path / "parley.db") as database,
        open_store(database, ProtoEventCodec(), b"page token key") as store,
        an_engine(store, model, []) as engine,
    ):
        run = await engine.start(ann, spec("hello"), None)
        async for _ in store.for_user(ann).runs.watch(run.run_id, 0):
            pass
        in_the_writer = await database.transaction(lambda _: WHO.get(NOBODY))
    assert model.seen == [NOBODY]
    assert in_the_writer == NOBODY


async def test_a_model_s_client_is_opened_for_nobody() -> None:
    opening = Opening(lambda: WHO.get(NOBODY))
    assert await opening.result() == NOBODY


async def test_an_mcp_client_is_opened_and_closed_for_nobody() -> None:
    seen: list[str] = []

    def opened(_: object) -> McpClient:
        transport = Unreachable(seen)
        return McpClient(
            "test", transport, connect_timeout_s=5, wants=lambda _: True, max_tools=1, on_change=lambda: None
        )

    clients = Clients(opened, max_clients=1, idle_s=60)
    with pytest.raises(ToolError):
        async with clients.use(UserKey(context_of("ann")), "", {}):
            pass
    await clients.close()
    assert seen == [NOBODY]


async def test_uses_of_keys_are_written_for_nobody() -> None:
    seen: list[str] = []
    written = asyncio.Event()

    async def record(_: object) -> None:
        seen.append(WHO.get(NOBODY))
        written.set()

    async with LastUses(record, flush_s=0.01) as uses:
        uses.note("key", datetime.now(UTC))
        await written.wait()
    assert seen == [NOBODY]


async def test_a_task_that_is_begun_without_a_context_of_its_own_would_see_him() -> None:
    """The twin: what the tests above would find."""

    async def seen() -> str:
        return WHO.get(NOBODY)

    assert await asyncio.create_task(seen()) == "ann"
