"""An engine with an agent whose model answers by what the conversation holds, so that it can be cut anywhere."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from contract.storage.test_run_log import decoded, watched
from parley.v1 import run_event_pb2, tool_pb2
from parley_server.agents.base import AgentDescription
from parley_server.agents.registry import AgentRegistry
from parley_server.agents.tool_loop_agent import ToolLoopAgent
from parley_server.domain.context import RequestContext
from parley_server.llm.model_catalog import Profiles
from parley_server.llm.model_service import ModelChunk, ModelRequest, ModelService, ToolMessage
from parley_server.metrics.recorder import SILENT, Recorder
from parley_server.quotas.quotas import Quotas
from parley_server.runs.engine import APPROVAL_EXPIRY, RunEngine
from parley_server.runs.presence import DISCONNECT_GRACE
from parley_server.storage.sql.store import SqlStore
from parley_server.tools.approval_gate import ApprovalGate
from parley_server.tools.approval_policy import DEFAULT_POLICY, ApprovalPolicy
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.registry import ToolRegistry
from parley_server.tools.tool import Tool
from run_history import check_run
from unit.agents.scripted_model import Step, ask_for

CHUNK_PAUSE_S = 0.004

_REFUSALS = ("INVALID_ARGUMENTS", "UNKNOWN_TOOL", "DUPLICATE", "TOO_MANY_CALLS")


class RememberingModel:
    """Plays the step that comes next by how many calls have been answered."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps: dict[int, Step] = {}
        answered = 0
        for step in steps:
            self._steps[answered] = step
            answered += sum(len(getattr(chunk, "tool_calls", ())) for chunk in step)
        self.requests: list[ModelRequest] = []

    async def stream(self, context: RequestContext, request: ModelRequest) -> AsyncGenerator[ModelChunk]:  # noqa: ARG002
        self.requests.append(request)
        answered = sum(isinstance(message, ToolMessage) for message in request.messages)
        for chunk in self._steps[min(place for place in self._steps if place >= answered)]:
            await asyncio.sleep(CHUNK_PAUSE_S)
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk

    async def aclose(self) -> None:
        """Nothing to close."""


def calls(*names_and_numbers: tuple[str, int], text: str = "") -> Step:
    """Script a step that calls tools of a World."""
    return ask_for(*((name, json.dumps({"n": number})) for name, number in names_and_numbers), text=text)


@asynccontextmanager
async def an_engine(
    store: SqlStore,
    model: ModelService,
    tools: Sequence[Tool],
    agent_id: str = "assistant",
    disconnect_grace: timedelta = DISCONNECT_GRACE,
    profiles: Profiles | None = None,
    *,
    policy: ApprovalPolicy = DEFAULT_POLICY,
    approval_expiry: timedelta = APPROVAL_EXPIRY,
    recorder: Recorder = SILENT,
    quotas: Quotas | None = None,
) -> AsyncIterator[RunEngine]:
    """Build an engine with one agent; it parks its runs in the end."""
    registry = ToolRegistry(tools)
    agent = ToolLoopAgent(
        AgentDescription(agent_id, "Assistant", "Helps.", "m", registry.names),
        "Be kind.",
        model=model,
        tools=registry,
        tool_calls=ToolCallManager(registry, gate=ApprovalGate(policy, store)),
        profiles=profiles,
    )
    agents = AgentRegistry([agent], default_agent_id=agent_id)
    engine = RunEngine(
        store, store.worker, agents, recorder, disconnect_grace, approval_expiry=approval_expiry, quotas=quotas
    )
    try:
        yield engine
    finally:
        await engine.park()


async def history_of(store: SqlStore, context: RequestContext, run_id: str) -> list[run_event_pb2.RunEvent]:
    """Follow a run to its end, check that it kept the contract, and that it reads the same again."""
    async with asyncio.timeout(20):
        stored = await watched(store, context, run_id)
    assert await watched(store, context, run_id) == stored
    events = decoded(stored)
    check_run(events)
    return events


def statuses_of(events: Sequence[run_event_pb2.RunEvent]) -> dict[tuple[str, int], str]:
    """Tell how each call of a World's tool ended, by tool and `n`; calls that were refused are left out."""
    started = {
        event.tool_call_started.call_id: event.tool_call_started for event in events if event.tool_call_started.call_id
    }
    statuses: dict[tuple[str, int], str] = {}
    for event in events:
        if event.HasField("tool_call_finished"):
            call = started[event.tool_call_finished.call_id]
            status = tool_pb2.ToolCallStatus.Name(event.tool_call_finished.status).removeprefix("TOOL_CALL_STATUS_")
            if status not in _REFUSALS:
                statuses[call.name, json.loads(call.arguments_json)["n"]] = status
    return statuses
