"""One call of an MCP tool: the request, the server's questions in between, the answer."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from mcp.client import ClientSession
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    ElicitRequest,
    ElicitRequestParams,
    InputRequiredResult,
)
from pydantic import JsonValue, TypeAdapter

from parley_server.domain.tool import ToolEffect
from parley_server.tools.mcp.questions import Questions
from parley_server.tools.mcp.resumption import Resumption

# How often a server may ask before it answers.
MAX_ROUNDS = 10
_PAUSE_S = 0.25
_KEY = "parley.v1/idempotencyKey"

Report = Callable[[str, float | None], None]
_Send = Callable[[Resumption], Awaitable[CallToolResult | InputRequiredResult]]

_ANSWER: TypeAdapter[CallToolResult | InputRequiredResult] = TypeAdapter(CallToolResult | InputRequiredResult)


@dataclass(frozen=True, slots=True)
class RemoteCall:
    """What is asked of a server, and what it asks meanwhile; `idempotency_key` goes along, for servers that know it.

    A call that was made before, and has waited for the user's answer since, is `resumed` with it.
    """

    name: str
    arguments: Mapping[str, JsonValue]
    effect: ToolEffect
    idempotency_key: str
    report: Report
    questions: Questions
    resumed: Resumption | None = None


async def perform(session: ClientSession, call: RemoteCall) -> CallToolResult:
    """Make a call and return its result; what the server asks in between is answered by the call's `questions`.

    The result is not checked against the schema that the server states: the schema is the server's word, too, and a
    check by anybody's schema may take for ever.

    Raises:
        ConfirmationNeededError: the user is to be asked what the server asks.
        MCPError: the server, or the connection, failed.
        pydantic.ValidationError: the answer is none.
    """

    async def report(progress: float, total: float | None, message: str | None) -> None:
        call.report(message or "", progress / total if total else None)

    meta: dict[str, object] = {_KEY: call.idempotency_key}
    params = CallToolRequestParams.model_validate({"name": call.name, "arguments": call.arguments, "_meta": meta})

    async def send(resumption: Resumption) -> CallToolResult | InputRequiredResult:
        request = CallToolRequest(params=params.model_copy(update=resumption.fields))
        return await session.send_request(request, _ANSWER, progress_callback=report)

    answer = await _resumed(call, send)
    for _ in range(MAX_ROUNDS - 1):
        if isinstance(answer, CallToolResult):
            break
        resumption = call.questions.answers(_elicitations(answer), answer.request_state)
        if not resumption.responses:
            await asyncio.sleep(_PAUSE_S)
        answer = await send(resumption)
    if isinstance(answer, CallToolResult):
        return answer
    raise MCPError(INVALID_REQUEST, "it asked for more without end")


async def _resumed(call: RemoteCall, send: _Send) -> CallToolResult | InputRequiredResult:
    """Begin a call, or go on with it where it has asked."""
    try:
        return await send(call.resumed or Resumption())
    except MCPError as error:
        if call.resumed is None or error.code != INVALID_PARAMS:
            raise
        # A server that was started anew may not know its own state any more. It has refused, so nothing has happened.
        call.questions.expect_again()
        return await send(Resumption())


def _elicitations(answer: InputRequiredResult) -> dict[str, ElicitRequestParams]:
    requests = answer.input_requests or {}
    for request in requests.values():
        if not isinstance(request, ElicitRequest):
            raise MCPError(INVALID_REQUEST, f"it asked for {request.method}, which this client does not offer")
    return {key: request.params for key, request in requests.items() if isinstance(request, ElicitRequest)}
