"""ToolService: maps, calls one method, maps back."""

from collections import defaultdict

from parley.v1 import tool_pb2
from parley.v1 import tool_service_pb2 as pb

from parley_server.agents.registry import AgentRegistry
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import InvalidRequestError
from parley_server.rpc.mapping.enums import CALL_OUTCOMES, TOOL_CALL_STATUSES
from parley_server.rpc.mapping.page import page_of, read_page
from parley_server.rpc.mapping.text import refuse_nul
from parley_server.rpc.mapping.tool import write_tool, write_tool_call
from parley_server.storage.repositories import Store, ToolCallFilter
from parley_server.tools.registry import ToolRegistry

DEFAULT_PIECE_BYTES = 1024 * 1024
MAX_PIECE_BYTES = 2 * 1024 * 1024


class ToolServicer:
    """Serves the tools of the agents, and what came of their calls."""

    def __init__(self, agents: AgentRegistry, tools: ToolRegistry, store: Store) -> None:
        self._agents = agents
        self._tools = tools
        self._store = store

    async def list_tools(self, context: RequestContext, request: pb.ListToolsRequest) -> pb.ListToolsResponse:
        """Return a page of the tools."""
        agents = [self._agents.get(request.agent_id)] if request.agent_id else self._agents.all()
        wanted = {name for agent in agents for name in agent.description.tool_names}
        agents_with = self._agents_with()
        tools = {spec.name: write_tool(spec, agents_with[spec.name], context) for spec in self._tools.specs(wanted)}
        page = page_of(tools, read_page(request.page_size, request.page_token), tool_pb2.Tool.ByteSize)
        return pb.ListToolsResponse(tools=page.items, next_page_token=page.next_token)

    async def list_tool_calls(
        self, context: RequestContext, request: pb.ListToolCallsRequest
    ) -> pb.ListToolCallsResponse:
        """Return a page of the calls in the user's runs."""
        call_filter = ToolCallFilter(
            conversation_id=request.conversation_id,
            run_id=request.run_id,
            statuses=tuple(TOOL_CALL_STATUSES[status] for status in request.statuses),
            unresolved=request.unresolved,
        )
        page = await self._store.for_user(context).tool_calls.list(
            call_filter, read_page(request.page_size, request.page_token)
        )
        return pb.ListToolCallsResponse(
            tool_calls=[write_tool_call(call) for call in page.items], next_page_token=page.next_token
        )

    async def resolve_tool_call(
        self, context: RequestContext, request: pb.ResolveToolCallRequest
    ) -> pb.ResolveToolCallResponse:
        """Settle a call in doubt."""
        refuse_nul({"note": [request.note]})
        call = await self._store.for_user(context).tool_calls.resolve(
            request.run_id, request.call_id, CALL_OUTCOMES[request.outcome], request.note
        )
        return pb.ResolveToolCallResponse(tool_call=write_tool_call(call))

    async def get_tool_result(
        self, context: RequestContext, request: pb.GetToolResultRequest
    ) -> pb.GetToolResultResponse:
        """Return a piece of a large result."""
        size = min(request.max_bytes or DEFAULT_PIECE_BYTES, MAX_PIECE_BYTES)
        piece = await self._store.for_user(context).tool_calls.result_piece(request.result_id, request.offset, size)
        if request.offset > piece.total_bytes:
            raise InvalidRequestError.of("offset", "lies beyond the end of the result")
        return pb.GetToolResultResponse(content=piece.content, total_bytes=piece.total_bytes)

    def _agents_with(self) -> defaultdict[str, set[str]]:
        """Return which agents have each tool."""
        agents: defaultdict[str, set[str]] = defaultdict(set)
        for agent in self._agents.all():
            for name in agent.description.tool_names:
                agents[name].add(agent.description.agent_id)
        return agents
