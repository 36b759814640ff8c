"""AgentService's calls, one method each."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Final, TypeAlias

from grpc import aio
from parley.v1 import agent_service_pb2 as messages
from parley.v1.agent_pb2 import Agent
from parley.v1.agent_service_pb2_grpc import AgentServiceStub
from parley.v1.run_pb2 import (
    RUN_STATE_CANCELLED,
    RUN_STATE_EXPIRED,
    RUN_STATE_FAILED,
    RUN_STATE_SUCCEEDED,
    Run,
    RunState,
)

from parley_client.transport import Transport

FINAL_STATES: Final = frozenset({RUN_STATE_SUCCEEDED, RUN_STATE_FAILED, RUN_STATE_CANCELLED, RUN_STATE_EXPIRED})

EventStreamCall: TypeAlias = (
    "aio.UnaryStreamCall[messages.RunAgentRequest, messages.RunAgentResponse]"
    " | aio.UnaryStreamCall[messages.WatchRunRequest, messages.WatchRunResponse]"
)


class RunCalls:
    """AgentService over one transport. Every method that awaits raises ParleyError."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stub = AgentServiceStub(transport.channel)

    def run_agent(self, request: messages.RunAgentRequest) -> EventStreamCall:
        """Open the stream of a new run."""
        return self._transport.stream(self._stub.RunAgent, request)

    def watch(self, run_id: str, after_seq: int) -> EventStreamCall:
        """Open the stream of a run that there is."""
        return self._transport.stream(self._stub.WatchRun, messages.WatchRunRequest(run_id=run_id, after_seq=after_seq))

    async def start(self, request: messages.StartRunRequest) -> Run:
        """Have a run accepted and do not watch it."""
        return (await self._transport.unary(self._stub.StartRun, request)).run

    async def get(self, run_id: str) -> Run:
        """Return a run as it stands."""
        return (await self._transport.unary(self._stub.GetRun, messages.GetRunRequest(run_id=run_id))).run

    async def cancel(self, run_id: str, reason: str) -> Run:
        """Ask a run to stop; return it as it stands then."""
        request = messages.CancelRunRequest(run_id=run_id, reason=reason)
        return (await self._transport.unary(self._stub.CancelRun, request)).run

    async def steer(self, request: messages.SteerRunRequest) -> str:
        """Add words to a run; return the id of the addition."""
        return (await self._transport.unary(self._stub.SteerRun, request)).steer_id

    async def list(
        self, *, conversation_id: str, agent: str, states: Iterable[RunState.ValueType], labels: Mapping[str, str]
    ) -> AsyncGenerator[Run]:
        """List the user's runs, the newest first, page by page."""
        request = messages.ListRunsRequest(
            conversation_id=conversation_id, agent_id=agent, states=states, labels=labels
        )
        async for page in self._transport.pages(self._stub.ListRuns, request):
            for run in page.runs:
                yield run

    async def agents(self) -> AsyncGenerator[Agent]:
        """List the server's agents, ordered by id, page by page."""
        request = messages.ListAgentsRequest()
        async for page in self._transport.pages(self._stub.ListAgents, request):
            for agent in page.agents:
                yield agent
