"""Answers without end, over a real socket: the client stops reading, whatever else is sent."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterable

import pytest
from aiohttp import web
from model_server import ModelServer, RawAnswer, text_frame
from parley_server.domain.errors import Reason
from parley_server.llm.sse import MAX_FRAME_BYTES, MAX_RESPONSE_BYTES
from unit.llm.service_calls import failure

MIB = 1024 * 1024
# What lies in the buffers of the kernel and of both HTTP libraries when the client stops.
IN_FLIGHT = 16 * MIB


class Flood:
    """A server that sends one piece over and over, and counts what it got rid of."""

    def __init__(self) -> None:
        self.head = b""
        self.piece = b""
        self.total = 0
        self.headers: dict[str, str] = {}
        self.sent = 0
        self.left = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **self.headers})
        await response.prepare(request)
        try:
            await response.write(self.head)
            while self.sent < self.total:
                await response.write(self.piece)
                self.sent += len(self.piece)
        except ConnectionError:
            return response
        finally:
            self.left.set()
        return response


@pytest.fixture
async def flood() -> Flood:
    return Flood()


@pytest.fixture
async def base_url(flood: Flood) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", flood.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    await runner.cleanup()


@pytest.fixture
async def upstream() -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        yield server


@pytest.mark.parametrize(
    ("head", "piece", "limit"),
    [
        pytest.param(b"data: ", b"x" * 65536, MAX_FRAME_BYTES, id="one line of a gigabyte"),
        pytest.param(b'{"a":"', b"x" * 65536, MAX_FRAME_BYTES, id="one JSON answer of a gigabyte"),
        pytest.param(b"", text_frame("x" * 65536), MAX_RESPONSE_BYTES, id="events of a gigabyte"),
    ],
)
async def test_a_gigabyte_is_not_read(
    flood: Flood, base_url: str, upstream: ModelServer, head: bytes, piece: bytes, limit: int
) -> None:
    flood.head, flood.piece, flood.total = head, piece, 1024 * MIB
    assert (await failure(upstream, base_url=base_url)).reason == Reason.MODEL_RESPONSE_INVALID
    await flood.left.wait()
    assert flood.sent < limit + IN_FLIGHT


def pieces(body: bytes) -> Iterable[bytes]:
    return (body[start : start + 65536] for start in range(0, len(body), 65536))


async def test_a_gzip_bomb_is_refused(upstream: ModelServer) -> None:
    bomb = gzip.compress(b"data: " + bytes(256 * MIB), compresslevel=1)
    headers = {"Content-Type": "text/event-stream", "Content-Encoding": "gzip"}
    upstream.enqueue(RawAnswer(list(pieces(bomb)), headers=headers))
    error = await failure(upstream)
    assert error.reason in {Reason.MODEL_RESPONSE_INVALID, Reason.MODEL_STREAM_INCOMPLETE}


async def test_a_byte_at_a_time_is_no_event(upstream: ModelServer) -> None:
    """Bytes keep arriving; nothing comes of them."""
    drip = [bytes([byte]) for byte in text_frame("x" * 200)]
    upstream.enqueue(RawAnswer([text_frame("Hi"), *drip], pause_s=0.05))
    assert (await failure(upstream, gap_timeout_s=0.5)).reason == Reason.MODEL_TIMEOUT
