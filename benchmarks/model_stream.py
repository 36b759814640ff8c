"""What reading a model's answer costs: the OpenAIService against the SDK's own stream, in one run.

usage: python benchmarks/model_stream.py [streams] [chunks] [rounds]

The upstream runs in a process of its own and sends a pre-encoded answer as fast as it is read. Printed are
microseconds of CPU (user and system, this process alone) per chunk, requests included; the variants take turns.
"""

import asyncio
import multiprocessing
import resource
import statistics
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from datetime import UTC, datetime
from multiprocessing.connection import Connection

import msgspec
import openai
import uvloop
from parley_server.domain.content import TextPart
from parley_server.domain.context import RequestContext
from parley_server.domain.principal import Principal, PrincipalKind
from parley_server.llm.model_service import ModelRequest, TextChunk, UserMessage
from parley_server.llm.model_settings import ModelSettings
from parley_server.llm.openai_service import OpenAIService

Read = Callable[[], Awaitable[int]]

CONTEXT = RequestContext(
    user_id="ann",
    principal=Principal(kind=PrincipalKind.USER, subject="ann", method="benchmark"),
    request_id="req_1",
    timestamp=datetime.now(UTC),
)
EVENTS_PER_WRITE = 32


def event(delta: dict[str, object], finish_reason: str | None = None) -> bytes:
    """One chunk with all the fields that OpenAI sends, in HTTP's chunked encoding."""
    chunk = {
        "id": "chatcmpl-0123456789abcdefghijklmnop",
        "object": "chat.completion.chunk",
        "created": 1760000000,
        "model": "benchmark",
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
        "usage": None,
        "obfuscation": "aBcDeFgH",
    }
    frame = b"data: " + msgspec.json.encode(chunk) + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(frame), frame)


def serve(chunks: int, started: Connection) -> None:
    """Be the upstream."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    group = b"".join(event({"content": word}) for word in (" the", "ing ", "data", "abcd")) * (EVENTS_PER_WRITE // 4)
    tail = event({}, "stop") + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while request := await reader.readuntil(b"\r\n\r\n"):
                length = next(line for line in request.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.partition(b":")[2]))
                writer.write(head)
                for _ in range(chunks // EVENTS_PER_WRITE):
                    writer.write(group)
                    await writer.drain()
                writer.write(tail)
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        started.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(main())


def by_service(service: OpenAIService) -> Read:
    """Read one answer with Parley's service."""
    request = ModelRequest("benchmark", (UserMessage((TextPart("hi"),)),))

    async def read() -> int:
        async with aclosing(service.stream(CONTEXT, request)) as chunks:
            return sum([len(chunk.text) async for chunk in chunks if isinstance(chunk, TextChunk)])

    return read


def by_sdk(client: openai.AsyncOpenAI) -> Read:
    """Read one answer with the SDK's typed stream."""

    async def read() -> int:
        stream = await client.chat.completions.create(
            model="benchmark", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        return sum([len(chunk.choices[0].delta.content or "") async for chunk in stream])

    return read


def cpu_s() -> float:
    """CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measure(port: int, streams: int, chunks: int, rounds: int) -> None:
    """Let the variants take turns and print a line for each."""
    base_url = f"http://127.0.0.1:{port}/v1"
    service = OpenAIService(ModelSettings.model_validate({"base_url": base_url, "name": "m", "api_key": "k"}))
    httpx = openai.AsyncOpenAI(base_url=base_url, api_key="k")
    aiohttp = openai.AsyncOpenAI(base_url=base_url, api_key="k", http_client=openai.DefaultAioHttpClient())
    variants = {
        "OpenAIService": by_service(service),
        "SDK stream": by_sdk(httpx),
        "SDK stream, aiohttp": by_sdk(aiohttp),
    }
    costs: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds + 1):
        for name, read in variants.items():
            before = cpu_s()
            lengths = await asyncio.gather(*(read() for _ in range(streams)))
            assert lengths == [chunks * 4] * streams
            if turn:
                costs[name].append((cpu_s() - before) / (streams * chunks) * 1e6)
    for name, cost in costs.items():
        ratio = statistics.median(cost) / statistics.median(costs["OpenAIService"])
        spread = f"{min(cost):.1f}-{max(cost):.1f}"
        print(f"{name:20} {statistics.median(cost):7.1f} us/chunk ({spread})  x{ratio:.1f}")
    await service.aclose()
    await httpx.close()
    await aiohttp.close()


def main() -> None:
    """Start the upstream, measure, and stop it."""
    streams, chunks, rounds = (int(word) for word in [*sys.argv[1:], "20", "512", "5"][:3])
    chunks -= chunks % EVENTS_PER_WRITE
    receiving, sending = multiprocessing.Pipe(duplex=False)
    upstream = multiprocessing.get_context("spawn").Process(target=serve, args=(chunks, sending), daemon=True)
    upstream.start()
    try:
        uvloop.run(measure(receiving.recv(), streams, chunks, rounds))
    finally:
        upstream.terminate()
        upstream.join()


if __name__ == "__main__":
    main()
