"""ToolHostService as a tool host serves it."""

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import NoReturn, TypeVar, cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from parley.v1 import tool_host_service_pb2 as pb
from parley.v1 import tool_host_service_pb2_grpc as pb_grpc
from parley.v1.request_context_pb2 import RequestContext
from pydantic import BaseModel

from parley_client.tool_host.call import ToolContext
from parley_client.tool_host.definition import DefinedTool
from parley_client.tool_host.delegation import DelegationError, DelegationKeys
from parley_client.tool_host.execution import execute
from parley_client.tool_host.wire_text import wire_text

_MAX_MESSAGE_CHARS = 1024
_CONTEXT_KEY = "parley-context-bin"
_REQUEST_ID_KEY = "x-request-id"
_DELEGATION_KEY = "parley-delegation"

_log = logging.getLogger("parley_client.tool_host")

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class ToolHostServicer(pb_grpc.ToolHostServiceServicer):
    """Describes and runs tools for whoever has the token; an empty one lets in everybody.

    With `keys` a call has to prove for whom it is, too.
    """

    def __init__(
        self, tools: Mapping[str, DefinedTool[BaseModel]], token: str, keys: DelegationKeys | None = None
    ) -> None:
        self._tools = tools
        self._keys = keys
        self._bearer = f"Bearer {token}".encode() if token else b""
        self._at_work: set[asyncio.Task[pb.CallToolResponse]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until no tool is at work."""
        await self._idle.wait()

    async def DescribeTools(  # noqa: N802  # the contract's name
        self,
        request: pb.DescribeToolsRequest,  # noqa: ARG002  # has no fields
        context: "grpc.aio.ServicerContext[pb.DescribeToolsRequest, pb.DescribeToolsResponse]",
    ) -> pb.DescribeToolsResponse:
        """Tell all tools."""
        await self._authenticate(context)
        return pb.DescribeToolsResponse(tools=[tool.description for tool in self._tools.values()])

    async def CallTool(  # noqa: N802  # the contract's name
        self,
        request: pb.CallToolRequest,
        context: "grpc.aio.ServicerContext[pb.CallToolRequest, pb.CallToolResponse]",
    ) -> AsyncIterator[pb.CallToolResponse]:
        """Run one tool: its newest progress is told on the way, its answer last. It is cancelled with the call."""
        await self._authenticate(context)
        tool = self._tools.get(request.name)
        if tool is None:
            await _refuse(context, grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND", "there is no such tool")
        if request.spec_hash != tool.description.spec_hash:
            await _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "TOOL_CHANGED", "the tool has changed")
        reports = _Reports()
        call = await self._proved(await _call_of(tool, request, context, reports), context)
        work = asyncio.create_task(execute(tool, call, request.arguments_json))
        work.add_done_callback(reports.wake)
        self._at_work.add(work)
        self._idle.clear()
        try:
            while not work.done():
                if (progress := await reports.next()) is not None:
                    yield pb.CallToolResponse(progress=progress)
            yield work.result()
        finally:
            work.cancel()
            self._at_work.discard(work)
            if not self._at_work:
                self._idle.set()

    async def _authenticate(self, context: "grpc.aio.ServicerContext[_Request, _Response]") -> None:
        if self._bearer:
            given = _value(context, "authorization")
            if not hmac.compare_digest(given.encode() if isinstance(given, str) else given, self._bearer):
                await _refuse(context, grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID", "the token is not valid")

    async def _proved(
        self, call: ToolContext, context: "grpc.aio.ServicerContext[pb.CallToolRequest, pb.CallToolResponse]"
    ) -> ToolContext:
        """Return the call with what its token proves; refuses one that proves something else, or nothing."""
        if self._keys is None:
            return call
        try:
            proved = self._keys.verify_call(
                call.delegation_token, user_id=call.user_id, run_id=call.run_id, call_id=call.call_id
            )
        except DelegationError as error:
            _log.warning("call %s proves nothing: %s", call.call_id, error)
            await _refuse(context, grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID", "the call proves no user")
        return replace(call, delegation=proved)


class _Reports:
    """What a tool tells of how far it is: the newest alone, for a server that may read slowly."""

    def __init__(self) -> None:
        self._newest: pb.HostedToolProgress | None = None
        self._told = asyncio.Event()

    def report(self, message: str, fraction: float | None) -> None:
        """Take how far the tool is. What is no number from 0 to 1 is brought there."""
        # NaN is not itself; math.isnan fails for huge integers.
        known = None if fraction is None or fraction != fraction else min(max(fraction, 0.0), 1.0)  # noqa: PLR0124
        self._newest = pb.HostedToolProgress(message=wire_text(message, _MAX_MESSAGE_CHARS), fraction=known)
        self._told.set()

    def wake(self, _: object) -> None:
        """End the waiting of `next`."""
        self._told.set()

    async def next(self) -> pb.HostedToolProgress | None:
        """Wait for the newest; None when there is none and will be none."""
        await self._told.wait()
        self._told.clear()
        newest, self._newest = self._newest, None
        return newest


async def _call_of(
    tool: DefinedTool[BaseModel],
    request: pb.CallToolRequest,
    context: "grpc.aio.ServicerContext[pb.CallToolRequest, pb.CallToolResponse]",
    reports: _Reports,
) -> ToolContext:
    """Return what the tool is handed; refuses a call that is not for a user."""
    given = _value(context, _CONTEXT_KEY)
    try:
        user = RequestContext.FromString(given if isinstance(given, bytes) else b"")
    except DecodeError:
        user = RequestContext()
    if not user.user_id:
        await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_INVALID", f"{_CONTEXT_KEY} names no user")
    # None for a caller that sets no deadline, whatever the stubs say.
    left_s = cast("float | None", context.time_remaining()) or tool.timeout_s
    return ToolContext(
        request=user,
        request_id=str(_value(context, _REQUEST_ID_KEY)),
        tool_name=tool.description.name,
        run_id=request.run_id,
        call_id=request.call_id,
        idempotency_key=request.idempotency_key,
        deadline=asyncio.get_running_loop().time() + min(tool.timeout_s, left_s),
        report=reports.report,
        delegation_token=str(_value(context, _DELEGATION_KEY)),
    )


def _value(context: "grpc.aio.ServicerContext[_Request, _Response]", key: str) -> str | bytes:
    """Return the value of a key that came once, else an empty one."""
    values = [value for name, value in context.invocation_metadata() or () if name == key]
    return values[0] if len(values) == 1 else ""


async def _refuse(
    context: "grpc.aio.ServicerContext[_Request, _Response]", code: grpc.StatusCode, reason: str, message: str
) -> NoReturn:
    """End a call before anything has happened."""
    details = AnyMessage()
    details.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="parley.v1"))
    status = status_pb2.Status(code=code.value[0], message=message, details=[details])
    await context.abort(code, message, (("grpc-status-details-bin", status.SerializeToString()),))
