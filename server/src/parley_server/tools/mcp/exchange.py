"""One call of an MCP tool: the request, the server's questions in between, the answer."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mcp.client import ClientSession
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_REQUEST,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    ElicitRequest,
    InputRequest,
    InputRequiredResult,
    InputResponse,
)
from pydantic import JsonValue, TypeAdapter

from parley_server.domain.tool import ToolEffect
from parley_server.tools.mcp.questions import Questions

# How often a server may ask before it answers.
MAX_ROUNDS = 10
_PAUSE_S = 0.25
_KEY = "parley.v1/idempotencyKey"

Report = Callable[[str, float | None], None]

_ANSWER: TypeAdapter[CallToolResult | InputRequiredResult] = TypeAdapter(CallToolResult | InputRequiredResult)


@dataclass(frozen=True, slots=True)
class RemoteCall:
    """What is asked of a server, and what it asks meanwhile; `idempotency_key` goes along, for servers that know it."""

    name: str
    arguments: Mapping[str, JsonValue]
    effect: ToolEffect
    idempotency_key: str
    report: Report
    questions: Questions


async def perform(session: ClientSession, call: RemoteCall) -> CallToolResult:
    """Make a call and return its result; what the server asks in between is answered by the call's `questions`.

    The result is not checked against the schema that the server states: the schema is the server's word, too, and a
    check by anybody's schema may take for ever.

    Raises:
        MCPError: the server, or the connection, failed.
        pydantic.ValidationError: the answer is none.
    """

    async def report(progress: float, total: float | None, message: str | None) -> None:
        call.report(message or "", progress / total if total else None)

    meta: dict[str, object] = {_KEY: call.idempotency_key}
    params = CallToolRequestParams.model_validate({"name": call.name, "arguments": call.arguments, "_meta": meta})
    for _ in range(MAX_ROUNDS):
        answer = await session.send_request(CallToolRequest(params=params), _ANSWER, progress_callback=report)
        if isinstance(answer, CallToolResult):
            return answer
        requests = answer.input_requests or {}
        responses = {key: _response(request, call.questions) for key, request in requests.items()}
        params = params.model_copy(update={"input_responses": responses or None, "request_state": answer.request_state})
        if not responses:
            await asyncio.sleep(_PAUSE_S)
    raise MCPError(INVALID_REQUEST, "it asked for more without end")


def _response(request: InputRequest, questions: Questions) -> InputResponse:
    if isinstance(request, ElicitRequest):
        return questions.answer(request.params)
    raise MCPError(INVALID_REQUEST, f"it asked for {request.method}, which this client does not offer")
