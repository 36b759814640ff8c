"""A server whose one agent books once, when its user has said yes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import grpc
from contract.recovery.asking import WRITES
from contract.recovery.marking_tools import World
from contract.recovery.recovering import RememberingModel, calls
from parley.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    approval_pb2,
    approval_service_pb2,
    approval_service_pb2_grpc,
    content_pb2,
    run_event_pb2,
    run_pb2,
)
from parley_server.agents.base import AgentDescription
from parley_server.agents.registry import AgentRegistry
from parley_server.agents.tool_loop_agent import ToolLoopAgent
from parley_server.auth.factory import ProviderParts, build_auth_chain
from parley_server.auth.key_administration import KeyAdministration
from parley_server.domain.api_key import ApiKey
from parley_server.domain.principal import PrincipalKind
from parley_server.rpc.drain import Drain
from parley_server.rpc.listener import ServerSettings
from parley_server.rpc.mapping.run_event import ProtoEventCodec
from parley_server.rpc.server import RpcServer
from parley_server.rpc.service import Service
from parley_server.rpc.servicers.agent_service import AgentServicer
from parley_server.rpc.servicers.approval_service import ApprovalServicer
from parley_server.runs.engine import RunEngine
from parley_server.storage.page import Page, PageRequest
from parley_server.storage.sql.sqlite import SqliteDatabase
from parley_server.storage.sql.store import open_store
from parley_server.tools.approval_gate import ApprovalGate
from parley_server.tools.call_manager import ToolCallManager
from parley_server.tools.registry import ToolRegistry
from rpc.chassis import HASH_KEY, Metadata, bearer
from unit.agents.scripted_model import say

APPROVE, DENY = approval_service_pb2.APPROVAL_DECISION_APPROVE, approval_service_pb2.APPROVAL_DECISION_DENY
TIMEOUT_S = 20.0


@dataclass(frozen=True)
class ApprovalServer:
    """A running server, and what its agent has done."""

    address: str
    world: World
    keys: KeyAdministration[PageRequest, Page[ApiKey]]

    async def caller(
        self,
        stack: AsyncExitStack,
        subject: str,
        kind: PrincipalKind = PrincipalKind.USER,
        scopes: Sequence[str] = (),
        acts_for: str = "",
    ) -> "Caller":
        """Make a key, and a connection of its own for it."""
        _, text = await self.keys.create(kind, subject, scopes, [acts_for] if acts_for else [])
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(self.address, options=options))
        claimed = (("parley-context", f'{{"userId":"{acts_for}"}}'),) if acts_for else ()
        return Caller(
            agent_service_pb2_grpc.AgentServiceStub(channel),
            approval_service_pb2_grpc.ApprovalServiceStub(channel),
            (*bearer(text), *claimed),
        )


@dataclass(frozen=True)
class Caller:
    """Somebody on a connection of his own."""

    agents: "agent_service_pb2_grpc.AgentServiceAsyncStub"
    approvals: "approval_service_pb2_grpc.ApprovalServiceAsyncStub"
    metadata: Metadata

    async def waiting_run(self) -> tuple[str, approval_pb2.Approval]:
        """Start a run and watch until it waits; return it, and what it asks."""
        spec = run_pb2.RunSpec(input=[content_pb2.ContentPart(text="book")])
        run = (await self.agents.StartRun(agent_service_pb2.StartRunRequest(run=spec), **self._call())).run
        events = await self.watch(run.run_id, until="run_waiting")
        [approval_id] = events[-1].run_waiting.approval_ids
        return run.run_id, await self.approval(approval_id)

    async def approval(self, approval_id: str) -> approval_pb2.Approval:
        request = approval_service_pb2.GetApprovalRequest(approval_id=approval_id)
        return (await self.approvals.GetApproval(request, **self._call())).approval

    async def decide(
        self, approval_id: str, decision: approval_service_pb2.ApprovalDecision.ValueType, reason: str = ""
    ) -> approval_pb2.Approval:
        request = approval_service_pb2.DecideApprovalRequest(approval_id=approval_id, decision=decision, reason=reason)
        return (await self.approvals.DecideApproval(request, **self._call())).approval

    async def listed(self, **wanted: object) -> list[approval_pb2.Approval]:
        request = approval_service_pb2.ListApprovalsRequest(**wanted)  # type: ignore[arg-type]  # fields by name
        return list((await self.approvals.ListApprovals(request, **self._call())).approvals)

    async def cancel(self, run_id: str) -> None:
        await self.agents.CancelRun(agent_service_pb2.CancelRunRequest(run_id=run_id), **self._call())

    async def watch(self, run_id: str, until: str = "") -> list[run_event_pb2.RunEvent]:
        """Watch a run to its end, or to the first event of a kind."""
        request = agent_service_pb2.WatchRunRequest(run_id=run_id)
        events = []
        async for response in self.agents.WatchRun(request, **self._call()):
            events.append(response.event)
            if response.event.WhichOneof("event") == until:
                break
        return events

    def _call(self) -> "_Call":
        return {"metadata": self.metadata, "timeout": TIMEOUT_S}


class _Call(TypedDict):
    metadata: Metadata
    timeout: float


@asynccontextmanager
async def approval_server(folder: Path) -> AsyncIterator[ApprovalServer]:
    """Run a server for a block, on a store of its own."""
    world = World()
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(SqliteDatabase(folder / "parley.db"))
        store = await stack.enter_async_context(open_store(database, ProtoEventCodec(), HASH_KEY))
        tools = ToolRegistry(world.tools())
        agent = ToolLoopAgent(
            AgentDescription("assistant", "Assistant", "Helps.", "m", tools.names),
            "Be kind.",
            model=RememberingModel([calls(("book", 1)), say("Done.")]),
            tools=tools,
            tool_calls=ToolCallManager(tools, gate=ApprovalGate(WRITES, store)),
        )
        agents, drain = AgentRegistry([agent]), Drain()
        engine = RunEngine(store, store.worker, agents)
        stack.push_async_callback(engine.park)
        services = [
            Service(
                agent_service_pb2.DESCRIPTOR.services_by_name["AgentService"],
                AgentServicer(engine, agents, store, drain),
            ),
            Service(
                approval_service_pb2.DESCRIPTOR.services_by_name["ApprovalService"], ApprovalServicer(engine, store)
            ),
        ]
        chain = build_auth_chain(("api_key",), ProviderParts(store.api_keys, HASH_KEY))
        server = RpcServer(services, chain, drain)
        address = await server.start(ServerSettings(listen="127.0.0.1:0"))
        stack.push_async_callback(server.stop, 0)
        yield ApprovalServer(address, world, KeyAdministration(store.api_keys, HASH_KEY))
