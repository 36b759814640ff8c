"""OpenAIService when the model's server fails: statuses, broken streams, silence, and readers who leave."""

import asyncio
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from model_server import DONE, ModelServer, RawAnswer, finish_frame, text_frame
from parley_server.domain.errors import ErrorKind, Reason
from parley_server.domain.usage import Usage
from parley_server.llm.model_service import (
    FinishChunk,
    FinishReason,
    ModelService,
    TextChunk,
)
from structlog.testing import capture_logs
from unit.llm.service_calls import CONTEXT, HELLO, WHOLE, ask, failure, service_at


@pytest.mark.parametrize(
    ("status", "body", "kind", "reason"),
    [
        (401, b"", ErrorKind.FAILED_PRECONDITION, Reason.MODEL_AUTHENTICATION_FAILED),
        (403, b"", ErrorKind.FAILED_PRECONDITION, Reason.MODEL_AUTHENTICATION_FAILED),
        (400, b'{"error": {"message": "no"}}', ErrorKind.FAILED_PRECONDITION, Reason.MODEL_REQUEST_REJECTED),
        (404, b"", ErrorKind.FAILED_PRECONDITION, Reason.MODEL_REQUEST_REJECTED),
        (422, b"", ErrorKind.FAILED_PRECONDITION, Reason.MODEL_REQUEST_REJECTED),
        (307, b"", ErrorKind.FAILED_PRECONDITION, Reason.MODEL_REQUEST_REJECTED),
        (
            400,
            b'{"error": {"code": "context_length_exceeded"}}',
            ErrorKind.FAILED_PRECONDITION,
            Reason.MODEL_CONTEXT_TOO_LONG,
        ),
        (413, b"", ErrorKind.FAILED_PRECONDITION, Reason.MODEL_CONTEXT_TOO_LONG),
        (429, b"", ErrorKind.RESOURCE_EXHAUSTED, Reason.MODEL_RATE_LIMITED),
        (500, b"", ErrorKind.UNAVAILABLE, Reason.MODEL_UNAVAILABLE),
        (503, b"<html>", ErrorKind.UNAVAILABLE, Reason.MODEL_UNAVAILABLE),
    ],
)
async def test_statuses(upstream: ModelServer, status: int, body: bytes, kind: ErrorKind, reason: Reason) -> None:
    upstream.enqueue(RawAnswer([body], status, {"Location": "/elsewhere"}))
    error = await failure(upstream)
    assert (error.kind, error.reason) == (kind, reason)
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after-ms": "1500", "Retry-After": "2"}, 1.5),
        ({}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "86400"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Mon, 01 Jan 0001 00:00:00 GMT"}, None),
    ],
)
async def test_retry_after(upstream: ModelServer, headers: dict[str, str], expected: float | None) -> None:
    upstream.enqueue(RawAnswer([], 429, headers))
    assert (await failure(upstream)).retry_after_s == expected


async def test_retry_after_as_a_date(upstream: ModelServer) -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    upstream.enqueue(RawAnswer([], 429, {"Retry-After": moment}))
    wait_s = (await failure(upstream)).retry_after_s
    assert wait_s is not None
    assert 25 < wait_s <= 30


async def test_what_the_server_writes_never_reaches_the_message(upstream: ModelServer) -> None:
    leak = b'{"error": {"message": "bad key sk-test at http://10.0.0.1"}}'
    for status in (400, 401, 429, 500, 200):
        upstream.enqueue(RawAnswer([leak], status))
        message = str(await failure(upstream))
        assert not any(word in message for word in ("sk-test", "10.0.0.1", "127.0.0.1", "bad key"))


async def test_the_log_names_the_failure_and_nothing_that_was_said(upstream: ModelServer) -> None:
    leak = b'{"error": {"message": "bad key sk-test"}}'
    upstream.enqueue(RawAnswer([leak], 400, {"x-request-id": "up_1"}), RawAnswer([leak], 200, {"x-request-id": "up 2"}))
    with capture_logs() as logs:
        await failure(upstream)
        await failure(upstream)
    refused, failed = logs
    assert refused == {
        "event": "model_call_refused",
        "log_level": "warning",
        "request_id": "req_1",
        "model": "offline",
        "reason": "MODEL_REQUEST_REJECTED",
        "http_status": 400,
        "upstream_request_id": "up_1",
    }
    assert (failed["reason"], failed["upstream_request_id"]) == ("MODEL_RESPONSE_INVALID", "")
    assert "sk-test" not in str(logs)
    assert "hello" not in str(logs)


async def test_an_error_body_that_breaks_off_leaves_the_status(upstream: ModelServer) -> None:
    upstream.enqueue(RawAnswer([b"x"], 401, then="reset"))
    assert (await failure(upstream)).reason == Reason.MODEL_AUTHENTICATION_FAILED


async def test_an_endless_error_body_is_not_read(upstream: ModelServer) -> None:
    upstream.enqueue(RawAnswer([b"x" * 1_000_000] * 1000, 500))
    assert (await failure(upstream)).reason == Reason.MODEL_UNAVAILABLE
    async with asyncio.timeout(5):
        await upstream.requests[0].disconnected.wait()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (RawAnswer([text_frame("Hi")]), Reason.MODEL_STREAM_INCOMPLETE),
        (RawAnswer([DONE]), Reason.MODEL_STREAM_INCOMPLETE),
        (RawAnswer([text_frame("Hi")], then="reset"), Reason.MODEL_STREAM_INCOMPLETE),
        (RawAnswer([], then="reset"), Reason.MODEL_STREAM_INCOMPLETE),
        (RawAnswer([b"<html>busy</html>"], headers={"Content-Type": "text/html"}), Reason.MODEL_RESPONSE_INVALID),
        (RawAnswer([text_frame("Hi"), b"data: {\n\n", WHOLE]), Reason.MODEL_RESPONSE_INVALID),
        (RawAnswer([b'{"error": {"message": "overloaded"}}']), Reason.MODEL_RESPONSE_INVALID),
    ],
)
async def test_bad_streams(upstream: ModelServer, answer: RawAnswer, reason: Reason) -> None:
    upstream.enqueue(answer)
    error = await failure(upstream)
    assert (error.kind, error.reason) == (ErrorKind.UNAVAILABLE, reason)


async def test_a_connection_that_breaks_after_the_finish_costs_only_the_usage(upstream: ModelServer) -> None:
    upstream.enqueue(RawAnswer([text_frame("Hi") + finish_frame()], then="reset"))
    assert await ask(upstream) == [
        TextChunk("Hi"),
        FinishChunk(FinishReason.STOP, (), Usage(model_calls=1), is_usage_known=False),
    ]


async def test_a_server_that_never_ends_a_finished_body_is_left(upstream: ModelServer) -> None:
    upstream.enqueue(RawAnswer([WHOLE], then="hang"))
    started = time.monotonic()
    assert isinstance((await ask(upstream))[-1], FinishChunk)
    assert time.monotonic() - started < 2
    await upstream.requests[0].disconnected.wait()


async def test_a_finished_answer_waits_little_for_its_usage(upstream: ModelServer) -> None:
    upstream.enqueue(RawAnswer([text_frame("Hi") + finish_frame()], then="hang"))
    chunks = await ask(upstream, gap_timeout_s=0.3)
    assert chunks[-1] == FinishChunk(FinishReason.STOP, (), Usage(model_calls=1), is_usage_known=False)


async def test_silence_before_the_first_event_times_out_comments_or_not(upstream: ModelServer) -> None:
    comments = RawAnswer([b": working\n\n"] * 100, pause_s=0.05)
    for answer in (RawAnswer([], then="hang"), comments):
        upstream.enqueue(answer)
        error = await failure(upstream, first_event_timeout_s=0.3)
        assert (error.kind, error.reason) == (ErrorKind.DEADLINE_EXCEEDED, Reason.MODEL_TIMEOUT)


async def test_a_gap_times_out_comments_or_not(upstream: ModelServer) -> None:
    comments = RawAnswer([text_frame("Hi"), *[b": working\n\n"] * 100], pause_s=0.05)
    for answer in (RawAnswer([text_frame("Hi")], then="hang"), comments):
        upstream.enqueue(answer)
        assert (await failure(upstream, gap_timeout_s=0.3)).reason == Reason.MODEL_TIMEOUT


async def test_events_keep_a_slow_answer_alive(upstream: ModelServer) -> None:
    upstream.enqueue(RawAnswer([*[text_frame("x")] * 6, WHOLE], pause_s=0.1))
    chunks = await ask(upstream, first_event_timeout_s=0.4, gap_timeout_s=0.4)
    assert isinstance(chunks[-1], FinishChunk)


async def test_a_slow_reader_is_no_slow_model(upstream: ModelServer) -> None:
    upstream.enqueue(RawAnswer([text_frame("Hi"), WHOLE], pause_s=0.05))
    async with (
        service_at(upstream, gap_timeout_s=0.3) as service,
        aclosing(service.stream(CONTEXT, HELLO)) as chunks,
    ):
        async for _ in chunks:
            await asyncio.sleep(0.5)


async def test_nobody_listens_is_unavailable(upstream: ModelServer) -> None:
    async with ModelServer() as gone:
        base_url = gone.base_url
    assert (await failure(upstream, base_url=base_url)).reason == Reason.MODEL_UNAVAILABLE


@pytest.mark.parametrize(
    ("reply", "reason"),
    [(b"", Reason.MODEL_UNAVAILABLE), (b"220 mail.example ESMTP\r\n", Reason.MODEL_RESPONSE_INVALID)],
)
async def test_a_server_that_speaks_no_http(upstream: ModelServer, reply: bytes, reason: Reason) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(reply)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert (await failure(upstream, base_url=f"http://127.0.0.1:{port}/v1")).reason == reason


async def test_connecting_times_out(upstream: ModelServer) -> None:
    """A listener whose queue is full answers nothing, like a host behind a wall."""
    async with _full_listener() as port:
        error = await failure(upstream, base_url=f"http://127.0.0.1:{port}/v1", connect_timeout_s=0.3)
    assert error.reason == Reason.MODEL_TIMEOUT


@asynccontextmanager
async def _full_listener() -> AsyncGenerator[int]:
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        await asyncio.sleep(0.05)
        yield listener.getsockname()[1]


async def test_closing_the_generator_drops_the_connection_and_leaves_no_task(upstream: ModelServer) -> None:
    async with service_at(upstream) as service:
        upstream.enqueue(RawAnswer([WHOLE]))
        async with aclosing(service.stream(CONTEXT, HELLO)) as chunks:
            assert [chunk async for chunk in chunks]
        before = asyncio.all_tasks()
        upstream.enqueue(RawAnswer([text_frame("Hi")], then="hang"))
        async with aclosing(service.stream(CONTEXT, HELLO)) as chunks:
            await anext(chunks)
        started = time.monotonic()
        await upstream.requests[1].disconnected.wait()
        assert time.monotonic() - started < 1
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() <= before


@pytest.mark.parametrize("reads", [[], [text_frame("Hi")]])
async def test_cancelling_a_reader_drops_the_connection(upstream: ModelServer, reads: list[bytes]) -> None:
    async def read(service: ModelService) -> None:
        async with aclosing(service.stream(CONTEXT, HELLO)) as chunks:
            async for _ in chunks:
                pass

    upstream.enqueue(RawAnswer(reads, then="hang"))
    async with service_at(upstream) as service:
        reader = asyncio.create_task(read(service))
        received = await upstream.request()
        await asyncio.sleep(0.1)
        reader.cancel()
        async with asyncio.timeout(1):
            await asyncio.wait([reader])
            await received.disconnected.wait()
        assert reader.cancelled()


async def test_many_streams_cancelled_leave_the_pool_usable(upstream: ModelServer) -> None:
    async def begin_and_leave(service: ModelService) -> None:
        async with aclosing(service.stream(CONTEXT, HELLO)) as chunks:
            await anext(chunks)

    upstream.enqueue(*[RawAnswer([text_frame("Hi")], then="hang")] * 200)
    async with service_at(upstream) as service:
        await asyncio.gather(*(begin_and_leave(service) for _ in range(200)))
        async with asyncio.timeout(5):
            for received in upstream.requests:
                await received.disconnected.wait()
        upstream.enqueue(RawAnswer([WHOLE]))
        async with aclosing(service.stream(CONTEXT, HELLO)) as chunks:
            assert isinstance([chunk async for chunk in chunks][-1], FinishChunk)
