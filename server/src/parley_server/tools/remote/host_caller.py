"""Calls of a host's tools: each sent once at most, and told honestly what became of it."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import grpc
import structlog
from parley.v1 import tool_host_service_pb2 as pb
from pydantic import JsonValue, SecretStr

from parley_server.breaker import Breaker, BreakerState
from parley_server.domain.context import RequestContext
from parley_server.domain.tool import ToolSpec
from parley_server.tools.errors import ToolError
from parley_server.tools.json_value import dump_json
from parley_server.tools.remote.conversation import Conversation
from parley_server.tools.remote.description import HostedTool
from parley_server.tools.remote.host_connection import HostConnection, HostUnreachableError, Metadata
from parley_server.tools.remote.outcomes import (
    OUTDATED,
    REFUSALS,
    HostFaultError,
    broken,
    not_reached,
    refused,
    result_aside,
    unusable,
)
from parley_server.tools.tool import JsonObject, ToolContext

ContextCodec = Callable[[RequestContext], bytes]
# Makes the token that proves to the host for whom it works: for the call, and a call of so many seconds.
CallProof = Callable[[ToolContext, float], str]

PROOF_KEY = "parley-delegation"

# What the core says of a message beyond the limit, which it has thrown away.
_TOO_LARGE = "larger than max"

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class HostCaller:
    """Calls the tools of one host, `source`. Nothing is sent while `is_up` is false, or its breaker open.

    `codec` writes a user's context as the contract has it. `look_again` is called when the host seems to be lost, or
    to have other tools by now. With a `proof` every call carries one.
    """

    def __init__(
        self,
        source: str,
        connection: HostConnection,
        codec: ContextCodec,
        look_again: Callable[[], None],
        clock: Callable[[], float],
        proof: CallProof | None = None,
    ) -> None:
        self._connection = connection
        self._codec = codec
        self._proof = proof
        self._look_again = look_again
        self._log = _log.bind(source=source)
        self._breaker = Breaker(self._tell_of_breaker, clock)
        self.is_up = False

    async def call(self, tool: HostedTool, context: ToolContext, arguments: JsonObject) -> JsonValue:
        """Have the host run one of its tools once, until `context.deadline` at most. Raises ToolError."""
        admitted = self._breaker.admit() if self.is_up else None
        if admitted is None:
            raise not_reached()
        try:
            await self._connection.connect()
        except HostUnreachableError:
            self._breaker.failed(admitted)
            self._look_again()
            raise not_reached() from None
        return await self._send(tool, context, arguments, admitted)

    async def _send(self, tool: HostedTool, context: ToolContext, arguments: JsonObject, admitted: int) -> JsonValue:
        clock = asyncio.get_running_loop().time
        timeout_s = max(context.deadline - clock(), 0.0)
        metadata = self._metadata(context, timeout_s)
        stream = self._connection.call(_request(tool, context, arguments), metadata, timeout_s)
        conversation = Conversation(stream, context.progress)
        try:
            result = await result_aside(await conversation.answer())
        except grpc.aio.AioRpcError as error:
            raise self._verdict(error, tool.spec, admitted, has_begun=conversation.events > 0) from None
        except HostFaultError as fault:
            self._breaker.failed(admitted)
            self._log.warning("tool_host_answer_unusable", tool=tool.spec.name, problem=str(fault))
            raise unusable(tool.spec) from fault
        except ToolError:
            self._breaker.succeeded(admitted)
            raise
        except asyncio.CancelledError:
            # The manager's own clock may be the first to tell that it is too late.
            if clock() >= context.deadline and not conversation.events:
                self._breaker.failed(admitted)
            raise
        finally:
            stream.cancel()
        self._breaker.succeeded(admitted)
        return result

    def _verdict(self, error: grpc.aio.AioRpcError, spec: ToolSpec, admitted: int, *, has_begun: bool) -> ToolError:
        """Count what ended a call without an answer, and return what the model is told of it."""
        code = error.code()
        self._log.info("tool_host_call_failed", tool=spec.name, code=code.name, has_begun=has_begun)
        if code in REFUSALS and not has_begun:
            self._breaker.reached(admitted)
            if code in OUTDATED:
                self._look_again()
            return refused(code)
        # A tool that tells how far it is may be slow, and its host in order.
        if not (has_begun and code is grpc.StatusCode.DEADLINE_EXCEEDED):
            self._breaker.failed(admitted)
        if code is grpc.StatusCode.UNAVAILABLE:
            self._look_again()
        return broken(code, spec, is_too_large=_TOO_LARGE in (error.details() or ""))

    def _metadata(self, context: ToolContext, timeout_s: float) -> Metadata:
        # What a host may compare with its own clock: a run may have been accepted long ago.
        now = context.request.model_copy(update={"timestamp": datetime.now(UTC)})
        told: Metadata = (("parley-context-bin", self._codec(now)), ("x-request-id", context.request.request_id))
        if self._proof is None:
            return told
        proof = self._proof(context, timeout_s)
        # A host that says it again, in an error perhaps, must not tell it to the model.
        context.conceal(SecretStr(proof))
        return (*told, (PROOF_KEY, proof))

    def _tell_of_breaker(self, state: BreakerState) -> None:
        self._log.warning("tool_host_breaker", state=state.name.lower())


def _request(tool: HostedTool, context: ToolContext, arguments: JsonObject) -> pb.CallToolRequest:
    return pb.CallToolRequest(
        name=tool.name,
        arguments_json=dump_json(arguments),
        spec_hash=tool.spec_hash,
        idempotency_key=context.idempotency_key,
        run_id=context.run_id,
        call_id=context.call_id,
    )
