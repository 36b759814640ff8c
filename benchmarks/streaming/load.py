"""The clients of one load: so many streams at a time, so often, each as its script says.

    python -m streaming.KIND_clients KIND ADDRESS MODEL STREAMS TURNS SPREAD_S HISTORY
    python -m streaming.KIND_clients KIND ADDRESS MODEL STREAMS hold

It gets ready and says so in a line, and begins when it is told to by another. The starts of a turn lie evenly in
SPREAD_S seconds; every request comes with HISTORY messages before its own. Prints one line of JSON (measurements.py).
With `hold` every stream is opened and read up to its first chunk; then it says so in a line and holds them until its
input ends.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping

import uvloop
from streaming.asked import Asked, Opener, Stream
from streaming.measurements import Sightings

READY = "ready"


async def _read(stream: Stream, sightings: Sightings, delay_s: float) -> None:
    await asyncio.sleep(delay_s)
    began = time.perf_counter()
    is_first = True
    async for text in stream():
        if is_first:
            sightings.first(time.perf_counter() - began)
            is_first = False
        sightings.message(text)


async def measure(stream: Stream, streams: int, turns: int, spread_s: float) -> None:
    """Let the streams run and print what was seen."""
    sightings = Sightings()
    began = time.perf_counter()
    for _ in range(turns):
        await asyncio.gather(*(_read(stream, sightings, number * spread_s / streams) for number in range(streams)))
    print(sightings.seen(time.perf_counter() - began).to_json(), flush=True)


async def hold(stream: Stream, streams: int) -> None:
    """Open the streams and hold them."""
    held: list[AsyncIterator[str]] = []
    while len(held) < streams:
        batch = [stream() for _ in range(min(100, streams - len(held)))]
        await asyncio.gather(*(anext(each) for each in batch))
        held += batch
    print(len(held), flush=True)
    await asyncio.to_thread(sys.stdin.read)


def main(openers: Mapping[str, Opener]) -> None:
    """Read the command line, and do what it says with one of these kinds of clients."""
    kind, address, model, streams, *rest = sys.argv[1:]
    opener = openers[kind]

    async def work() -> None:
        if rest == ["hold"]:
            await hold(await opener(Asked(address, model, int(streams), int(streams))), int(streams))
            return
        turns, spread_s, history = int(rest[0]), float(rest[1]), int(rest[2])
        stream = await opener(Asked(address, model, int(streams), int(streams) * turns, history))
        print(READY, flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await measure(stream, int(streams), turns, spread_s)

    uvloop.run(work())
