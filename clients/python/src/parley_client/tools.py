"""The server's tools, the calls of them in the user's runs, and what came of those."""

from collections.abc import AsyncGenerator, Iterable

from parley.v1 import tool_service_pb2 as messages
from parley.v1.tool_pb2 import Tool, ToolCall, ToolCallOutcome, ToolCallStatus
from parley.v1.tool_service_pb2_grpc import ToolServiceStub

from parley_client.transport import Transport


class Tools:
    """ToolService over one transport. Every method raises ParleyError."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._stub = ToolServiceStub(transport.channel)

    async def list(self, *, agent: str = "", page_size: int = 0) -> AsyncGenerator[Tool]:
        """List the tools of an agent, of all agents when it is empty, ordered by name."""
        request = messages.ListToolsRequest(page_size=page_size, agent_id=agent)
        async for page in self._transport.pages(self._stub.ListTools, request):
            for tool in page.tools:
                yield tool

    async def calls(
        self,
        *,
        conversation_id: str = "",
        run_id: str = "",
        statuses: Iterable[ToolCallStatus.ValueType] = (),
        unresolved: bool = False,
        page_size: int = 0,
    ) -> AsyncGenerator[ToolCall]:
        """List the calls in the user's runs, the newest first, fetched `page_size` at a time (0: the server's).

        `unresolved` leaves only the calls of unknown outcome that nobody has settled.
        """
        request = messages.ListToolCallsRequest(
            page_size=page_size,
            conversation_id=conversation_id,
            run_id=run_id,
            statuses=statuses,
            unresolved=unresolved,
        )
        async for page in self._transport.pages(self._stub.ListToolCalls, request):
            for call in page.tool_calls:
                yield call

    async def resolve(
        self, run_id: str, call_id: str, outcome: ToolCallOutcome.ValueType, *, note: str = ""
    ) -> ToolCall:
        """Settle a call of unknown outcome: say whether it happened, and what the model shall know besides.

        It is settled once: another word than the first is a FailedPreconditionError.
        """
        request = messages.ResolveToolCallRequest(run_id=run_id, call_id=call_id, outcome=outcome, note=note)
        return (await self._transport.unary(self._stub.ResolveToolCall, request)).tool_call

    async def result(self, result_id: str) -> str:
        """Return the whole of a result that was too large for its event, as JSON; at most 4 MiB."""
        whole = bytearray()
        while True:
            request = messages.GetToolResultRequest(result_id=result_id, offset=len(whole))
            piece = await self._transport.unary(self._stub.GetToolResult, request)
            whole += piece.content
            if len(whole) >= piece.total_bytes or not piece.content:
                return whole.decode()
