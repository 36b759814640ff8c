"""Watchers of one run, or of a run each. What comes is counted, not read.

python -m durability.watchers <address> <one | each> <model> <watchers>      with the API key in PARLEY_API_KEY

Starts the runs and prints a line; told so by a line, opens the watchers and prints another once each has an event;
told so again, prints what they were sent from the first to the end of the runs.
"""

import asyncio
import os
import sys
import time

import grpc
import uvloop
from parley.v1.agent_service_pb2 import StartRunRequest, WatchRunRequest
from parley.v1.agent_service_pb2_grpc import AgentServiceStub
from parley.v1.content_pb2 import ContentPart
from parley.v1.run_pb2 import ModelOptions, RunSpec

WATCH = "/parley.v1.AgentService/WatchRun"
STREAMS_PER_CHANNEL = 100

Watch = grpc.aio.UnaryStreamMultiCallable[bytes, bytes]


class Watchers:
    """The clients of one load."""

    def __init__(self, address: str, watchers: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        count = -(-watchers // STREAMS_PER_CHANNEL)
        self._channels = [grpc.aio.insecure_channel(address, options) for _ in range(count)]
        self._metadata = (("authorization", f"Bearer {os.environ['PARLEY_API_KEY']}"),)
        self._watchers = watchers
        self.events = 0

    async def start(self, model: str, runs: int) -> list[str]:
        """Start runs, a few at a time; return their ids."""
        spec = RunSpec(input=[ContentPart(text="hi")], model_options=ModelOptions(model=model))
        agents = AgentServiceStub(self._channels[0])
        ids: list[str] = []
        while len(ids) < runs:
            batch = range(min(50, runs - len(ids)))
            starts = (agents.StartRun(StartRunRequest(run=spec), metadata=self._metadata) for _ in batch)
            ids += [started.run.run_id for started in await asyncio.gather(*starts)]
        return ids

    async def watch(self, run_ids: list[str]) -> list[asyncio.Task[None]]:
        """Open the watchers; return once each has its first event."""
        tasks: list[asyncio.Task[None]] = []
        opened = [asyncio.Event() for _ in range(self._watchers)]
        for number, event in enumerate(opened):
            watch: Watch = self._channels[number % len(self._channels)].unary_stream(WATCH)
            request = WatchRunRequest(run_id=run_ids[number % len(run_ids)]).SerializeToString()
            tasks.append(asyncio.create_task(self._count(watch, request, event)))
            if number % 100 == 99:
                await event.wait()
        for event in opened:
            await event.wait()
        return tasks

    async def _count(self, watch: Watch, request: bytes, opened: asyncio.Event) -> None:
        async for _ in watch(request, metadata=self._metadata):
            opened.set()
            self.events += 1


async def main() -> None:
    """Do as told."""
    address, kind, model, count = sys.argv[1:]
    watchers = Watchers(address, int(count))
    run_ids = await watchers.start(model, 1 if kind == "one" else int(count))
    print("started", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    began = time.perf_counter()
    tasks = await watchers.watch(run_ids)
    print("watching", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await asyncio.gather(*tasks)
    print(watchers.events, time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    uvloop.run(main())
