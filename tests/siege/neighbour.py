"""The well-behaved client beside an attack: is it served, and how long does it wait?"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from parley.v1 import conversation_service_pb2 as pb
from parley.v1 import conversation_service_pb2_grpc as pb_grpc

DEADLINE_S = 10.0
_PAUSE_S = 0.02
# Every so often it comes on a connection of its own: whoever is connected already is the last to feel a flood.
_NEW_CONNECTION_EVERY = 5


@dataclass
class Served:
    """How long the calls took, in seconds, those on a new connection with the connecting; and what failed."""

    calls_s: list[float] = field(default_factory=list)
    new_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        waits = sorted(self.calls_s)
        p99 = waits[min(len(waits) - 1, int(len(waits) * 0.99))]
        return f"{statistics.median(waits) * 1e3:.0f} / {p99 * 1e3:.0f} / {max(self.new_s) * 1e3:.0f}"


@asynccontextmanager
async def neighbour(address: str) -> AsyncIterator[Served]:
    """Call a server again and again for a block, and once more after it."""
    served = Served()
    leaving = asyncio.Event()
    async with grpc.aio.insecure_channel(address) as channel:
        living = asyncio.create_task(_live(address, channel, served, leaving))
        try:
            yield served
        finally:
            leaving.set()
            await living


async def _live(address: str, channel: grpc.aio.Channel, served: Served, leaving: asyncio.Event) -> None:
    while not (leaving.is_set() and served.new_s):
        for _ in range(_NEW_CONNECTION_EVERY - 1):
            await _call(channel, served.calls_s, served.failures)
            await asyncio.sleep(_PAUSE_S)
        async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as fresh:
            await _call(fresh, served.new_s, served.failures)


async def _call(channel: grpc.aio.Channel, waits_s: list[float], failures: list[str]) -> None:
    start = time.perf_counter()
    try:
        request = pb.ListConversationsRequest(page_size=1)
        await pb_grpc.ConversationServiceStub(channel).ListConversations(request, timeout=DEADLINE_S)
    except grpc.aio.AioRpcError as error:
        failures.append(f"{error.code().name}: {error.details()}")
    waits_s.append(time.perf_counter() - start)
