"""Every call ends with exactly one outcome, and its end can be told from the others in the metrics and in the log."""

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from parley.v1 import agent_service_pb2 as pb
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import NotFoundError, ParleyError
from rpc.chassis import GET_RUN, WATCH_RUN, failed
from rpc.observed import Observed, observed
from rpc.raw_http2 import RawClient, framed

UNARY, STREAM = "GetRun", "WatchRun"


@pytest.fixture
async def server() -> AsyncIterator[Observed]:
    async with observed() as running:
        yield running


class Waiting:
    """Answers never; tells that it was asked."""

    def __init__(self, server: Observed) -> None:
        self.asked = asyncio.Event()
        server.chassis.runs.answer, server.chassis.runs.stream = self.answer, self.stream

    async def answer(self, _context: RequestContext, _request: pb.GetRunRequest) -> pb.GetRunResponse:
        self.asked.set()
        await asyncio.sleep(60)
        raise AssertionError

    async def stream(self, _context: RequestContext, _request: pb.WatchRunRequest) -> AsyncGenerator[bytes]:
        yield b""
        self.asked.set()
        await asyncio.sleep(60)


def begin(server: Observed, method: str, timeout: float | None = 30) -> asyncio.Future[object]:
    chassis = server.chassis
    call = chassis.get_run(timeout=timeout) if method == UNARY else chassis.watch_run(timeout=timeout)

    async def finish() -> None:
        try:
            if isinstance(call, grpc.aio.UnaryStreamCall):
                async for _ in call:
                    pass
            else:
                await call
        finally:
            # A reader that is cancelled between two messages leaves its call open.
            call.cancel()

    return asyncio.ensure_future(finish())


async def cancel(server: Observed, method: str) -> None:
    waiting = Waiting(server)
    call = begin(server, method)
    await waiting.asked.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def miss_the_deadline(server: Observed, method: str) -> None:
    Waiting(server)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await begin(server, method, timeout=0.3)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def hang_up(server: Observed, method: str) -> None:
    waiting = Waiting(server)
    async with RawClient(server.chassis.address) as client:
        await client.call(GET_RUN if method == UNARY else WATCH_RUN, [framed(b"\n\x03run")])
        await waiting.asked.wait()


async def be_killed(server: Observed, method: str) -> None:
    waiting = Waiting(server)
    program = Path(__file__).with_name("one_call.py")
    client = await asyncio.create_subprocess_exec(sys.executable, str(program), server.chassis.address, method)
    await waiting.asked.wait()
    client.send_signal(signal.SIGKILL)
    await client.wait()


async def meet_a_fault(server: Observed, method: str) -> None:
    await end_with(server, method, ValueError("text of a user"))


async def ask_for_nothing(server: Observed, method: str) -> None:
    await end_with(server, method, NotFoundError("run"))


async def be_answered(server: Observed, method: str) -> None:
    await begin(server, method)


async def end_with(server: Observed, method: str, error: Exception) -> None:
    async def answer(_context: RequestContext, _request: pb.GetRunRequest) -> pb.GetRunResponse:
        raise error

    async def stream(_context: RequestContext, _request: pb.WatchRunRequest) -> AsyncGenerator[bytes]:
        yield b""
        raise error

    server.chassis.runs.answer, server.chassis.runs.stream = answer, stream
    await failed(begin(server, method))


ENDS: list[tuple[Callable[[Observed, str], Awaitable[None]], str, str, str]] = [
    (be_answered, "ok", "OK", ""),
    (cancel, "cancelled", "CANCELLED", ""),
    (miss_the_deadline, "deadline", "DEADLINE_EXCEEDED", ""),
    (hang_up, "disconnected", "CANCELLED", ""),
    (be_killed, "disconnected", "CANCELLED", ""),
    (meet_a_fault, "error", "INTERNAL", "INTERNAL_ERROR"),
    (ask_for_nothing, "error", "NOT_FOUND", "RESOURCE_NOT_FOUND"),
]


@pytest.mark.parametrize("method", [UNARY, STREAM])
@pytest.mark.parametrize(("behave", "end", "code", "reason"), ENDS, ids=[each[0].__name__ for each in ENDS])
async def test_each_end_is_itself_in_metrics_and_log(
    server: Observed, behave: Callable[[Observed, str], Awaitable[None]], end: str, code: str, reason: str, method: str
) -> None:
    await behave(server, method)
    (line,) = await server.settled(1)
    assert (line["end"], line["code"], line.get("reason", "")) == (end, code, reason)
    assert (line["method"], line["log_level"]) == (f"/parley.v1.AgentService/{method}", "info")
    assert line["duration_ms"] > 0
    assert "text of a user" not in str(server.log)
    for name in ("grpc_server_started_total", "grpc_server_handled_total", "parley_call_ends_total"):
        assert server.number(name) == 1
    assert server.number("grpc_server_handled_total", grpc_method=method, grpc_code=code) == 1
    assert server.number("parley_call_ends_total", grpc_method=method, kind=end) == 1
    assert server.number("grpc_server_handling_seconds_count", grpc_method=method) == 1


async def test_deadlines_of_any_length_are_deadlines(server: Observed) -> None:
    Waiting(server)
    timeouts = [0.05, 0.123, 0.5, 1.0, 1.234, 2.345]
    calls = [begin(server, method, timeout) for timeout in timeouts for method in (UNARY, STREAM)]
    await asyncio.gather(*calls, return_exceptions=True)
    assert {line["end"] for line in await server.settled(len(calls))} == {"deadline"}


async def test_a_flood_of_cancels_is_told_in_full(server: Observed) -> None:
    Waiting(server)
    calls = [begin(server, UNARY) for _ in range(200)]
    await asyncio.sleep(0.3)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert {line["end"] for line in await server.settled(200)} == {"cancelled"}


async def test_calls_that_outlast_the_servers_grace_were_ended_by_the_server(server: Observed) -> None:
    waiting = Waiting(server)
    call = begin(server, UNARY)
    await waiting.asked.wait()
    await server.chassis.server.stop(0.1)
    with pytest.raises(grpc.aio.AioRpcError):
        await call
    (line,) = await server.settled(1)
    assert (line["end"], line["code"], line["reason"]) == ("error", "UNAVAILABLE", "SERVER_DRAINING")


class UnsayableError(ParleyError):
    """Cannot be put into a status."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s=retry_after_s)


@pytest.mark.parametrize(
    "error", [UnsayableError("\ud800"), UnsayableError("x", float("nan")), UnsayableError("x", 1e300)]
)
@pytest.mark.parametrize("method", [UNARY, STREAM])
async def test_an_error_that_cannot_be_told_is_an_internal_one(
    server: Observed, error: UnsayableError, method: str
) -> None:
    await end_with(server, method, error)
    (line,) = await server.settled(1)
    assert (line["end"], line["code"]) == ("error", "INTERNAL")


async def test_methods_that_are_not_there_make_no_labels(server: Observed) -> None:
    before = server.recorder.scrape().count(b"\n")
    for path in ("/parley.v1.AgentService/Nothing", "/a/b", "/"):
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = server.chassis.channel.unary_unary(path)
        with pytest.raises(grpc.aio.AioRpcError):
            await call(b"", timeout=5)
    assert server.recorder.scrape().count(b"\n") == before
    assert server.calls == []


async def test_messages_are_counted(server: Observed) -> None:
    await be_answered(server, UNARY)
    await be_answered(server, STREAM)
    lines = await server.settled(2)
    assert [line["sent"] for line in lines] == [1, 3]
    for method, sent in ((UNARY, 1), (STREAM, 3)):
        assert server.number("grpc_server_msg_sent_total", grpc_method=method) == sent
        assert server.number("grpc_server_msg_received_total", grpc_method=method) == 1
