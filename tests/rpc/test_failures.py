"""What goes wrong below the guard: every call ends with a status of ours, and says nothing it should not."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

import grpc
import pytest
import structlog
from parley.v1 import agent_service_pb2 as pb
from parley_server.domain.call_errors import ServerDrainingError, SlowConsumerError
from parley_server.domain.context import RequestContext
from parley_server.domain.errors import InvalidRequestError, NotFoundError, ParleyError, Violation
from parley_server.rpc.mapping.features import not_implemented
from rpc.chassis import QUICK, WATCH_RUN, Chassis, Failure, failed, running
from rpc.raw_http2 import RawClient, framed

SECRET = "sk-secret /etc/path SELECT"


@pytest.fixture(scope="module")
async def module_chassis() -> AsyncIterator[Chassis]:
    """A server of little patience."""
    async with running(limits=QUICK) as chassis:
        yield chassis


async def failing_unary(chassis: Chassis, error: BaseException) -> Failure:
    async def answer(_context: RequestContext, _request: pb.GetRunRequest) -> pb.GetRunResponse:
        raise error

    chassis.runs.answer = answer
    return await failed(chassis.get_run())


async def failing_stream(chassis: Chassis, error: BaseException, after: int = 0) -> Failure:
    async def stream(_context: RequestContext, _request: pb.WatchRunRequest) -> AsyncGenerator[bytes]:
        for _ in range(after):
            yield b""
        raise error

    chassis.runs.stream = stream
    call = chassis.watch_run()
    for _ in range(after):
        assert await call.read() == pb.WatchRunResponse()
    return await failed(call.read())


@pytest.mark.parametrize("kind", [ValueError, OSError, TimeoutError, KeyError])
async def test_an_unknown_error_is_internal_and_keeps_its_text_to_itself(
    chassis: Chassis, kind: type[Exception]
) -> None:
    error = kind(SECRET)
    with structlog.testing.capture_logs() as logs:
        failures = [
            await failing_unary(chassis, error),
            await failing_stream(chassis, error),
            await failing_stream(chassis, error, after=2),
        ]
    for failure, entry in zip(failures, logs, strict=True):
        assert (failure.code, failure.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL_ERROR")
        request_id = str(failure.trailers["x-request-id"])
        assert failure.message == f"internal error (id={request_id})"
        assert (entry["event"], entry["request_id"]) == ("internal_error", request_id)
        assert (entry["log_level"], entry["error"]) == ("error", type(error).__name__)
        assert "answer" in str(entry["frames"]) or "stream" in str(entry["frames"])
        assert "sk-secret" not in repr((failure, entry))


async def test_a_method_that_is_not_built_says_so_by_the_name_of_its_feature(chassis: Chassis) -> None:
    failure = await failing_unary(chassis, not_implemented("get_run"))
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNIMPLEMENTED, "METHOD_NOT_IMPLEMENTED")
    assert failure.metadata == {"feature": "get_run"}


async def test_a_cancelled_inner_task_is_an_error_of_ours_and_not_the_calls_end(chassis: Chassis) -> None:
    async def answer(_context: RequestContext, _request: pb.GetRunRequest) -> pb.GetRunResponse:
        inner = asyncio.ensure_future(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(inner.cancel)
        await inner
        raise AssertionError

    chassis.runs.answer = answer
    with structlog.testing.capture_logs():
        assert (await failed(chassis.get_run())).code == grpc.StatusCode.INTERNAL
        assert (await failing_stream(chassis, asyncio.CancelledError())).code == grpc.StatusCode.INTERNAL


async def test_what_is_no_response_is_an_error_of_ours(chassis: Chassis) -> None:
    async def answer(_context: RequestContext, _request: pb.GetRunRequest) -> pb.GetRunResponse:
        return None  # type: ignore[return-value]  # the fault under test

    chassis.runs.answer = answer
    with structlog.testing.capture_logs():
        assert (await failed(chassis.get_run())).code == grpc.StatusCode.INTERNAL


async def test_an_error_of_ours_is_told_with_all_it_knows(chassis: Chassis) -> None:
    failure = await failing_unary(chassis, NotFoundError("run"))
    assert (failure.code, failure.reason, failure.message) == (
        grpc.StatusCode.NOT_FOUND,
        "RESOURCE_NOT_FOUND",
        "run not found",
    )
    assert 'resource_type: "run"' in str(failure.details["ResourceInfo"])
    failure = await failing_unary(chassis, InvalidRequestError.of_all([Violation("a.b", "c"), Violation("d", "e")]))
    assert failure.message == "a.b: c; d: e"
    assert str(failure.details["BadRequest"]).count("field_violations") == 2
    failure = await failing_stream(chassis, ServerDrainingError(), after=1)
    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")
    assert "retry_delay" in str(failure.details["RetryInfo"])
    assert failure.trailers["grpc-retry-pushback-ms"] == "1000"


async def test_words_without_measure_are_cut_to_what_every_client_takes(chassis: Chassis) -> None:
    violations = [Violation("f" * 500, "\N{BOMB}" * 500)] * 500
    error = ParleyError("x" * 9999, metadata={"k" * 60 + str(n): "v" * 999 for n in range(9)}, violations=violations)
    failure = await failing_unary(chassis, error)
    assert len(failure.message) == 512
    assert failure.details.keys() == {"ErrorInfo", "RequestInfo", "BadRequest"}


async def test_a_caller_without_a_deadline_is_given_one(chassis: Chassis) -> None:
    ended = asyncio.Event()

    async def answer(_context: RequestContext, _request: pb.GetRunRequest) -> pb.GetRunResponse:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        raise AssertionError

    chassis.runs.answer = answer
    failure = await failed(chassis.get_run(timeout=None))
    assert (failure.code, failure.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "CALL_TIMEOUT")
    assert ended.is_set()


async def test_the_callers_own_deadline_is_his_affair(chassis: Chassis) -> None:
    async def answer(_context: RequestContext, _request: pb.GetRunRequest) -> pb.GetRunResponse:
        await asyncio.sleep(3 * QUICK.unary_s)
        return pb.GetRunResponse()

    chassis.runs.answer = answer
    assert await chassis.get_run(timeout=30) == pb.GetRunResponse()
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await chassis.get_run(timeout=0.1)
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


class Endless:
    """A stream without end, and what became of it."""

    def __init__(self, message: bytes = b"", pause_s: float = 0.0) -> None:
        self.sent = 0
        self.was_slow = False
        self.ended = asyncio.Event()
        self.task: asyncio.Task[object] | None = None
        self._message = message
        self._pause_s = pause_s

    async def __call__(self, _context: RequestContext, _request: pb.WatchRunRequest) -> AsyncGenerator[bytes]:
        started_by = asyncio.current_task()
        try:
            while True:
                self.sent += 1
                yield self._message
                await asyncio.sleep(self._pause_s)
        except SlowConsumerError:
            self.was_slow = True
            raise
        finally:
            assert asyncio.current_task() is started_by
            self.ended.set()


@pytest.mark.parametrize("pause_s", [0.0, 60.0], ids=["while it writes", "while it waits"])
async def test_a_stream_is_closed_in_its_own_task_when_the_client_goes(chassis: Chassis, pause_s: float) -> None:
    endless = Endless(pause_s=pause_s)
    chassis.runs.stream = endless
    call = chassis.watch_run()
    await call.read()
    call.cancel()
    async with asyncio.timeout(2):
        await endless.ended.wait()


async def test_a_reader_who_takes_nothing_is_let_go(chassis: Chassis) -> None:
    endless = Endless(bytes(60_000))
    chassis.runs.stream = endless
    async with RawClient(chassis.address, window=1000) as client:
        await client.call(WATCH_RUN, [framed(b"\x0a\x03run")])
        async with asyncio.timeout(5):
            await endless.ended.wait()
    assert endless.sent < 10


async def test_a_slow_reader_is_told_why_the_stream_ended(chassis: Chassis) -> None:
    chassis.runs.stream = stream = Endless(pb.WatchRunResponse.SerializeToString(large_response()))
    call = chassis.watch_run(timeout=30)
    await call.read()
    await asyncio.sleep(3 * QUICK.write_s)
    failure = await failed(read_to_the_end(call))
    assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "SLOW_CONSUMER")
    assert stream.was_slow


def large_response() -> pb.WatchRunResponse:
    response = pb.WatchRunResponse()
    response.event.text_delta.text = "x" * 1_000_000
    return response


async def read_to_the_end(call: "grpc.aio.UnaryStreamCall[pb.WatchRunRequest, pb.WatchRunResponse]") -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


@pytest.mark.parametrize("gone", ["the client", "the server"])
async def test_a_fault_in_the_clean_up_of_a_call_that_is_gone_hurts_nobody(gone: str) -> None:
    cleaned_up = asyncio.Event()

    async def stream(_context: RequestContext, _request: pb.WatchRunRequest) -> AsyncGenerator[bytes]:
        try:
            yield b""
            await asyncio.sleep(60)
        finally:
            cleaned_up.set()
            raise ValueError(SECRET)

    with structlog.testing.capture_logs() as logs:
        async with running() as chassis:
            chassis.runs.stream = stream
            call = chassis.watch_run()
            await call.read()
            if gone == "the client":
                call.cancel()
            else:
                await chassis.server.stop(0.1)
            async with asyncio.timeout(2):
                await cleaned_up.wait()
    assert [entry["event"] for entry in logs] == ["internal_error"]
