"""Clients of GetRun on one connection, as many at a time as they are told.

python -m unary.load <address> <run id>        with the API key in PARLEY_API_KEY, if any

Every line `<clients> <calls>` on the standard input is answered by one with what was seen. Every call brings metadata
as Parley's own client sends it: the key, a RequestContext of this moment and a request id of its own.
"""

import asyncio
import os
import sys
import time
import uuid
from collections.abc import Iterator

import grpc
import uvloop
from parley.v1.agent_service_pb2 import GetRunRequest
from parley.v1.request_context_pb2 import ClientInfo, RequestContext
from streaming.measurements import percentile
from unary.measurements import Seen

METHOD = "/parley.v1.AgentService/GetRun"

Metadata = tuple[tuple[str, str | bytes], ...]


def _metadata(count: int) -> Iterator[Metadata]:
    key = os.environ.get("PARLEY_API_KEY")
    credential = (("authorization", f"Bearer {key}"),) if key else ()
    client = ClientInfo(name="benchmark", version="1.0")
    context = RequestContext(metadata={"tenant": "a"}, time_zone="Europe/Berlin", locale="de-DE", client=client)
    for _ in range(count):
        context.timestamp.GetCurrentTime()
        yield *credential, ("parley-context-bin", context.SerializeToString()), ("x-request-id", uuid.uuid4().hex)


class Clients:
    """Calls GetRun for one run; what comes back is counted, not read."""

    def __init__(self, address: str, run_id: str) -> None:
        self._call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = grpc.aio.insecure_channel(address).unary_unary(
            METHOD
        )
        self._request = GetRunRequest(run_id=run_id).SerializeToString()

    async def measure(self, clients: int, calls: int) -> Seen:
        """Make so many calls by so many clients, each of which waits for an answer before it asks again."""
        waiting = iter([*_metadata(calls)])
        waits_ms: list[float] = []
        sizes: set[int] = set()

        async def client() -> None:
            for metadata in waiting:
                began = time.perf_counter()
                sizes.add(len(await self._call(self._request, metadata=metadata)))
                waits_ms.append((time.perf_counter() - began) * 1000)

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        seconds = time.perf_counter() - began
        (size,) = sizes
        return Seen(calls, seconds, percentile(waits_ms, 0.5), percentile(waits_ms, 0.99), size)


async def main() -> None:
    """Measure whenever told to."""
    clients = Clients(*sys.argv[1:])
    while line := await asyncio.to_thread(sys.stdin.readline):
        count, calls = (int(word) for word in line.split())
        print((await clients.measure(count, calls)).to_json(), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
