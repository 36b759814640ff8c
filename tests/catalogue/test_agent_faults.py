"""Row 68 for runs: an agent with a fault fails its run, and tells the user nothing of what it was."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Never

import structlog
from parley_server.agents.base import AgentDescription, BaseAgent, Turn
from parley_server.agents.registry import AgentRegistry
from parley_server.domain.content import TextPart
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import Reason
from parley_server.domain.principal import ALL_SCOPES, Principal, PrincipalKind
from parley_server.domain.run import RunSpec, RunState
from parley_server.domain.run_event import HistoryTruncated
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.runs.engine import RunEngine
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.store import open_store

SECRET = "sk-secret /etc/path SELECT"


class FaultyAgent(BaseAgent):
    """Fails as nobody foresaw."""

    description = AgentDescription("assistant", "Faulty", "", "offline")

    def system_prompt(self, context: RequestContext) -> str:
        return context.user_id

    async def run(self, context: RequestContext, turn: Turn) -> Never:
        raise ValueError(f"{SECRET} {context.user_id} {turn.run_id}")


async def test_an_agents_fault_ends_its_run_and_keeps_its_text_to_itself(tmp_path: Path) -> None:
    principal = Principal(kind=PrincipalKind.USER, subject="ann", scopes=ALL_SCOPES, method="test")
    ann = RequestContext(user_id="ann", principal=principal, request_id="req", timestamp=datetime.now(UTC))
    async with (
        SqliteDatabase(tmp_path / "parley.db") as database,
        open_store(database, ProtoEventCodec(), b"k" * 32) as store,
    ):
        engine = RunEngine(store, store.worker, AgentRegistry([FaultyAgent()]))
        runs = store.for_user(ann).runs
        with structlog.testing.capture_logs() as logs:
            run_id = (await engine.start(ann, RunSpec("", "", (TextPart("hello"),)), None)).run_id
            batches = [batch async for batch in runs.watch(run_id, 0) if not isinstance(batch, HistoryTruncated)]
            told = b"".join(event.payload for batch in batches for event in batch)
        run = await runs.get(run_id)
        await engine.park()
    assert run.state is RunState.FAILED
    assert run.end is not None
    assert run.end.error is not None
    assert (run.end.error.reason, run.end.error.message) == (Reason.AGENT_FAILED, "the agent failed")
    assert SECRET.encode() not in told
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == ["agent_failed"]
