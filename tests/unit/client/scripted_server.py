"""A real grpc.aio server whose AgentService serves one run's log and cuts its streams as a plan says."""

import asyncio
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Never, TypeAlias

import grpc
from grpc import aio
from parley.v1 import admin_service_pb2, admin_service_pb2_grpc, agent_service_pb2_grpc
from parley.v1 import agent_service_pb2 as messages
from parley.v1.agent_pb2 import Agent
from parley.v1.run_event_pb2 import RunEvent
from parley.v1.run_pb2 import RUN_STATE_CANCELLING, RUN_STATE_RUNNING, Run
from unit.client.event_log import RUN_ID
from unit.client.statuses import error_info, trailers

# The generated servicers take a context of any request and response.
Context: TypeAlias = "aio.ServicerContext[Any, Any]"
Ending: TypeAlias = Callable[[Context], Awaitable[None]]


@dataclass
class Cut:
    """What one call of a stream gives out: so many events of the log, then the ending."""

    events: int
    ending: Ending


@dataclass
class ReceivedCall:
    method: str
    metadata: list[tuple[str, str | bytes]]
    time_remaining_s: float
    after_seq: int = 0
    request_id: str = ""
    conversation_id: str = ""


@dataclass
class ScriptedRun(agent_service_pb2_grpc.AgentServiceServicer):
    """Serves `log`; the n-th streaming call ends as `cuts[n]` says, the ones after the last cut go to the log's end."""

    log: list[RunEvent] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    calls: list[ReceivedCall] = field(default_factory=list)
    agents: list[Agent] = field(default_factory=list)
    run: Run = field(default_factory=lambda: Run(run_id=RUN_ID, state=RUN_STATE_RUNNING))
    open_streams: int = 0

    @property
    def attachments(self) -> list[tuple[str, int]]:
        return [(call.method, call.after_seq) for call in self.calls if call.method in {"RunAgent", "WatchRun"}]

    async def RunAgent(  # noqa: N802 - the contract's name
        self, request: messages.RunAgentRequest, context: Context
    ) -> AsyncIterator[messages.RunAgentResponse]:
        self._record("RunAgent", context, request_id=request.request_id, conversation_id=request.run.conversation_id)
        async for event in self._serve(0, context):
            yield messages.RunAgentResponse(event=event)

    async def WatchRun(  # noqa: N802 - the contract's name
        self, request: messages.WatchRunRequest, context: Context
    ) -> AsyncIterator[messages.WatchRunResponse]:
        self._record("WatchRun", context, after_seq=request.after_seq)
        async for event in self._serve(request.after_seq, context):
            yield messages.WatchRunResponse(event=event)

    async def GetRun(self, request: messages.GetRunRequest, context: Context) -> messages.GetRunResponse:  # noqa: N802, ARG002
        self._record("GetRun", context)
        return messages.GetRunResponse(run=self.run)

    async def CancelRun(  # noqa: N802 - the contract's name
        self, request: messages.CancelRunRequest, context: Context
    ) -> messages.CancelRunResponse:
        self._record("CancelRun", context)
        return messages.CancelRunResponse(run=Run(run_id=request.run_id, state=RUN_STATE_CANCELLING))

    async def StartRun(self, request: messages.StartRunRequest, context: Context) -> messages.StartRunResponse:  # noqa: N802
        self._record("StartRun", context, request_id=request.request_id)
        return messages.StartRunResponse(run=self.run)

    async def ListAgents(self, request: messages.ListAgentsRequest, context: Context) -> messages.ListAgentsResponse:  # noqa: N802
        """One agent a page; the token is the next one's index."""
        self._record("ListAgents", context)
        index = int(request.page_token or 0)
        more = index + 1 < len(self.agents)
        return messages.ListAgentsResponse(
            agents=self.agents[index : index + 1], next_page_token=str(index + 1) if more else ""
        )

    async def GetAgent(self, request: messages.GetAgentRequest, context: Context) -> messages.GetAgentResponse:  # noqa: N802, ARG002
        return await _unimplemented(context)

    async def ListRuns(self, request: messages.ListRunsRequest, context: Context) -> messages.ListRunsResponse:  # noqa: N802, ARG002
        return await _unimplemented(context)

    async def SteerRun(self, request: messages.SteerRunRequest, context: Context) -> messages.SteerRunResponse:  # noqa: N802, ARG002
        return await _unimplemented(context)

    def _record(
        self,
        method: str,
        context: Context,
        *,
        after_seq: int = 0,
        request_id: str = "",
        conversation_id: str = "",
    ) -> None:
        metadata = list(context.invocation_metadata() or ())
        remaining_s = context.time_remaining()
        self.calls.append(ReceivedCall(method, metadata, remaining_s, after_seq, request_id, conversation_id))

    async def _serve(self, after_seq: int, context: Context) -> AsyncIterator[RunEvent]:
        cut = self.cuts.pop(0) if self.cuts else None
        self.open_streams += 1
        try:
            for event in self.log[after_seq:][: cut.events if cut else None]:
                yield event
            if cut is not None:
                await cut.ending(context)
        finally:
            self.open_streams -= 1


@dataclass
class ScriptedAdmin(admin_service_pb2_grpc.AdminServiceServicer):
    """Answers GetServerInfo after so many failures."""

    failures: list[Ending] = field(default_factory=list)
    calls: int = 0

    async def GetServerInfo(  # noqa: N802 - the contract's name
        self,
        request: admin_service_pb2.GetServerInfoRequest,  # noqa: ARG002 - it has no fields
        context: Context,
    ) -> admin_service_pb2.GetServerInfoResponse:
        self.calls += 1
        if self.failures:
            await self.failures.pop(0)(context)
        return admin_service_pb2.GetServerInfoResponse(version="9.9.9")

    async def ListAuditEvents(  # noqa: N802 - the contract's name
        self,
        request: admin_service_pb2.ListAuditEventsRequest,  # noqa: ARG002
        context: Context,
    ) -> admin_service_pb2.ListAuditEventsResponse:
        await _unimplemented(context)


def abort(code: grpc.StatusCode, reason: str = "", *extra: tuple[str, str | bytes]) -> Ending:
    """End a call with a status: rich with a reason, bare as something on the way would make it without."""

    async def end(context: Context) -> None:
        rich = trailers(code, "scripted", error_info(reason)) if reason else ()
        await context.abort(code, "scripted", (*rich, *extra))

    return end


async def end_ok(context: Context) -> None:
    """End a call with OK, wherever the run stands."""


async def hang(context: Context) -> None:  # noqa: ARG001 - an Ending
    """Keep the call open and silent."""
    await asyncio.Event().wait()


async def _unimplemented(context: Context) -> Never:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not scripted")


@asynccontextmanager
async def serving(
    run: ScriptedRun, admin: ScriptedAdmin | None = None, address: str = "127.0.0.1:0"
) -> AsyncIterator[str]:
    """Serve on loopback; yields the address."""
    server = aio.server(options=[("grpc.so_reuseport", 0)])
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(run, server)
    admin_service_pb2_grpc.add_AdminServiceServicer_to_server(admin or ScriptedAdmin(), server)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


class CuttingProxy:
    """TCP between client and server, to lose connections the way networks do.

    `bytes_until_cut`, when given, says for each connection how much it brings the client before it is reset.
    """

    def __init__(self, upstream: str, bytes_until_cut: Callable[[], int] | None = None) -> None:
        self._bytes_until_cut = bytes_until_cut or (lambda: sys.maxsize)
        self._host, _, port = upstream.rpartition(":")
        self._port = int(port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._accepting = True
        self.connections = 0

    def cut(self) -> None:
        """Reset every connection."""
        for writer in tuple(self._writers):
            _reset(writer)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        try:
            yield f"{host}:{port}"
        finally:
            server.close()
            self.cut()
            await server.wait_closed()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        upstream_reader, upstream_writer = await asyncio.open_connection(self._host, self._port)
        pair = {writer, upstream_writer}
        self._writers |= pair
        try:
            until_cut = self._bytes_until_cut()
            await _first_done([_pump(reader, upstream_writer), _pump(upstream_reader, writer, until_cut)])
            if until_cut < sys.maxsize:
                _reset(writer)
        finally:
            self._writers -= pair
            for each in pair:
                each.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, max_bytes: int = sys.maxsize) -> None:
    """Pass bytes on until there are no more, or so many have passed."""
    try:
        while max_bytes > 0 and (block := await reader.read(min(65536, max_bytes))):
            max_bytes -= len(block)
            writer.write(block)
            await writer.drain()
    except ConnectionError:
        return  # cut is what this proxy is for


async def _first_done(pumps: Iterable[Awaitable[None]]) -> None:
    tasks = [asyncio.ensure_future(pump) for pump in pumps]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
