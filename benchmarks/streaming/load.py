"""The clients of one load: so many streams at a time, so often, each as its script says.

    python -m streaming.load grpc|watch|sse ADDRESS MODEL STREAMS TURNS SPREAD_S
    python -m streaming.load grpc|watch|sse ADDRESS MODEL STREAMS hold

The starts of a turn lie evenly in SPREAD_S seconds. Prints one line of JSON (measurements.py). With `hold` every stream
is opened and read up to its first chunk; then it says so in a line and holds them until its input ends. `watch` opens
one run and the streams on it; PARLEY_API_KEY is sent where it is set.
"""

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from itertools import cycle
from typing import TYPE_CHECKING

import grpc
import uvloop
from parley.v1.agent_service_pb2 import (
    RunAgentRequest,
    RunAgentResponse,
    StartRunRequest,
    WatchRunRequest,
    WatchRunResponse,
)
from parley.v1.agent_service_pb2_grpc import AgentServiceStub
from parley.v1.content_pb2 import ContentPart
from parley.v1.run_pb2 import ModelOptions, RunSpec
from streaming.measurements import Sightings

if TYPE_CHECKING:
    from parley.v1.agent_service_pb2_grpc import AgentServiceAsyncStub  # the stubs' own name

# One stream of a model, as the texts of its messages.
Stream = Callable[[], AsyncIterator[str]]

# Below the server's limit of streams on a connection.
STREAMS_PER_CHANNEL = 100
_STAMPS = re.compile(r"(?<!\d)\d{19} ")


def grpc_streams(address: str, model: str, streams: int) -> Callable[[], Awaitable[Stream]]:
    """Return what opens runs over as few connections as they need."""
    stubs = cycle(_stubs(address, streams))
    request = RunAgentRequest(run=_spec(model))

    async def prepare() -> Stream:
        return lambda: _texts(next(stubs).RunAgent(request, metadata=_metadata()))

    return prepare


def watch_streams(address: str, model: str, streams: int) -> Callable[[], Awaitable[Stream]]:
    """Return what starts one run and watches it."""
    stubs = cycle(_stubs(address, streams))

    async def prepare() -> Stream:
        started = await next(stubs).StartRun(StartRunRequest(run=_spec(model)), metadata=_metadata())
        request = WatchRunRequest(run_id=started.run.run_id)
        return lambda: _texts(next(stubs).WatchRun(request, metadata=_metadata()))

    return prepare


def sse_streams(address: str, model: str, streams: int) -> Callable[[], Awaitable[Stream]]:  # noqa: ARG001 - as above
    """Return what asks over HTTP, a connection a stream, and finds the stamps whatever is around them."""
    host, path = re.fullmatch(r"([^/]+)(/.*)", address).groups()  # type: ignore[union-attr]  # we wrote it
    body = json.dumps({"model": model, "stream": True, "messages": [{"role": "user", "content": "hi"}]})
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\nconnection: close\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n{body}".encode()

    async def prepare() -> Stream:
        return lambda: _sse_texts(host, request)

    return prepare


KINDS = {"grpc": grpc_streams, "watch": watch_streams, "sse": sse_streams}


def _stubs(address: str, streams: int) -> "list[AgentServiceAsyncStub]":
    # A pool of their own: channels of one address share a connection otherwise.
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = -(-streams // STREAMS_PER_CHANNEL)
    return [AgentServiceStub(grpc.aio.insecure_channel(address, options)) for _ in range(channels)]


def _spec(model: str) -> RunSpec:
    return RunSpec(input=[ContentPart(text="hi")], model_options=ModelOptions(model=model))


def _metadata() -> tuple[tuple[str, str], ...]:
    key = os.environ.get("PARLEY_API_KEY")
    return (("authorization", f"Bearer {key}"),) if key else ()


async def _texts(call: AsyncIterable[RunAgentResponse] | AsyncIterable[WatchRunResponse]) -> AsyncIterator[str]:
    async for response in call:
        if text := response.event.text_delta.text:
            yield text


async def _sse_texts(address: str, request: bytes) -> AsyncIterator[str]:
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 20)
    try:
        writer.write(request)
        left = ""
        while block := await reader.read(1 << 16):
            read = left + block.decode()
            # An event may be cut by the read; what follows the last stamp is looked at again.
            end = max((match.end() for match in _STAMPS.finditer(read)), default=0)
            left = read[max(end, len(read) - 24) :]
            if text := "".join(_STAMPS.findall(read)):
                yield text
    finally:
        writer.close()


async def _read(stream: Stream, sightings: Sightings, delay_s: float) -> None:
    await asyncio.sleep(delay_s)
    began = time.perf_counter()
    is_first = True
    async for text in stream():
        if is_first:
            sightings.first(time.perf_counter() - began)
            is_first = False
        sightings.message(text)


async def measure(prepare: Callable[[], Awaitable[Stream]], streams: int, turns: int, spread_s: float) -> None:
    """Let the streams run and print what was seen."""
    stream = await prepare()
    sightings = Sightings()
    began = time.perf_counter()
    for _ in range(turns):
        await asyncio.gather(*(_read(stream, sightings, number * spread_s / streams) for number in range(streams)))
    print(sightings.seen(time.perf_counter() - began).to_json(), flush=True)


async def hold(prepare: Callable[[], Awaitable[Stream]], streams: int) -> None:
    """Open the streams and hold them."""
    stream = await prepare()
    held: list[AsyncIterator[str]] = []
    while len(held) < streams:
        batch = [stream() for _ in range(min(100, streams - len(held)))]
        await asyncio.gather(*(anext(each) for each in batch))
        held += batch
    print(len(held), flush=True)
    await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    """Read the command line."""
    kind, address, model, streams, *rest = sys.argv[1:]
    prepare_on = KINDS[kind]

    async def work() -> None:
        prepare = prepare_on(address, model, int(streams))
        if rest == ["hold"]:
            await hold(prepare, int(streams))
        else:
            await measure(prepare, int(streams), int(rest[0]), float(rest[1]))

    uvloop.run(work())


if __name__ == "__main__":
    main()
