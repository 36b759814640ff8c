"""AgentService: maps, calls one method, maps back."""

import asyncio
from collections.abc import AsyncGenerator

from parley.v1 import agent_service_pb2 as pb

from parley_server.agents.registry import AgentRegistry
from parley_server.domain.context import RequestContext
from parley_server.domain.run import Run
from parley_server.rpc.drain import Drain
from parley_server.rpc.mapping.agent import write_agent
from parley_server.rpc.mapping.content import read_input
from parley_server.rpc.mapping.enums import RUN_STATES
from parley_server.rpc.mapping.idempotency import idempotency_of
from parley_server.rpc.mapping.page import page_of, read_page
from parley_server.rpc.mapping.run import read_run_spec, write_run
from parley_server.rpc.mapping.text import refuse_nul, texts_of
from parley_server.rpc.servicers.relay import relay
from parley_server.runs.engine import RunEngine
from parley_server.runs.presence import Attendance
from parley_server.storage.repositories import RunFilter, Store

# StartRun and RunAgent share their request ids, and their requests have one shape.
RUN_FAMILY = "run"
STEER_FAMILY = "SteerRun"


class AgentServicer:
    """Serves agents and their runs."""

    def __init__(self, engine: RunEngine, agents: AgentRegistry, store: Store, drain: Drain) -> None:
        self._engine = engine
        self._agents = agents
        self._store = store
        self._drain = drain

    async def list_agents(self, _context: RequestContext, request: pb.ListAgentsRequest) -> pb.ListAgentsResponse:
        """Return a page of the agents."""
        agents = {agent.description.agent_id: agent.description for agent in self._agents.all()}
        page = page_of(agents, read_page(request.page_size, request.page_token))
        return pb.ListAgentsResponse(
            agents=[write_agent(description) for description in page.items], next_page_token=page.next_token
        )

    async def get_agent(self, _context: RequestContext, request: pb.GetAgentRequest) -> pb.GetAgentResponse:
        """Return one agent."""
        return pb.GetAgentResponse(agent=write_agent(self._agents.get(request.agent_id).description))

    async def start_run(self, context: RequestContext, request: pb.StartRunRequest) -> pb.StartRunResponse:
        """Accept a run."""
        spec = read_run_spec(request.run, attached=False)
        run = await self._engine.start(context, spec, idempotency_of(request, request.request_id, RUN_FAMILY))
        return pb.StartRunResponse(run=write_run(run))

    async def run_agent(self, context: RequestContext, request: pb.RunAgentRequest) -> AsyncGenerator[bytes]:
        """Accept a run and return its events from the first."""
        starting = asyncio.ensure_future(self._start_attended(context, request))
        try:
            run, attendance = await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The run is accepted all the same, and its caller is gone.
            starting.add_done_callback(self._leave)
            raise
        return relay(self._store.for_user(context).runs, run.run_id, 0, self._drain, attendance)

    async def watch_run(self, context: RequestContext, request: pb.WatchRunRequest) -> AsyncGenerator[bytes]:
        """Return a run's events after a seq."""
        attendance = await self._engine.attend(context, request.run_id, is_caller=False)
        return relay(self._store.for_user(context).runs, request.run_id, request.after_seq, self._drain, attendance)

    async def get_run(self, context: RequestContext, request: pb.GetRunRequest) -> pb.GetRunResponse:
        """Return a run as it stands."""
        run = await self._store.for_user(context).runs.get(request.run_id)
        return pb.GetRunResponse(run=write_run(run))

    async def list_runs(self, context: RequestContext, request: pb.ListRunsRequest) -> pb.ListRunsResponse:
        """Return a page of the user's runs."""
        refuse_nul({"labels": texts_of(request.labels)})
        if request.agent_id:
            self._agents.get(request.agent_id)
        run_filter = RunFilter(
            conversation_id=request.conversation_id,
            states=tuple(RUN_STATES[state] for state in request.states),
            agent_id=request.agent_id,
            labels=tuple(sorted(request.labels.items())),
        )
        page = await self._store.for_user(context).runs.list(
            run_filter, read_page(request.page_size, request.page_token)
        )
        return pb.ListRunsResponse(runs=[write_run(run) for run in page.items], next_page_token=page.next_token)

    async def cancel_run(self, context: RequestContext, request: pb.CancelRunRequest) -> pb.CancelRunResponse:
        """Ask a run to stop."""
        refuse_nul({"reason": [request.reason]})
        run = await self._engine.cancel(context, request.run_id, request.reason)
        return pb.CancelRunResponse(run=write_run(run))

    async def steer_run(self, context: RequestContext, request: pb.SteerRunRequest) -> pb.SteerRunResponse:
        """Add words to a run."""
        steer_id, run = await self._engine.steer(
            context,
            request.run_id,
            read_input(request.input, "input"),
            idempotency_of(request, request.request_id, STEER_FAMILY),
        )
        return pb.SteerRunResponse(steer_id=steer_id, run=write_run(run))

    async def _start_attended(self, context: RequestContext, request: pb.RunAgentRequest) -> tuple[Run, Attendance]:
        spec = read_run_spec(request.run, attached=True)
        run = await self._engine.start(context, spec, idempotency_of(request, request.request_id, RUN_FAMILY))
        return run, await self._engine.attend(context, run.run_id, is_caller=True)

    def _leave(self, started: "asyncio.Future[tuple[Run, Attendance]]") -> None:
        if not started.cancelled() and started.exception() is None:
            _, attendance = started.result()
            attendance.leave(is_lost=not self._drain.started)
