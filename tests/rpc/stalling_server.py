"""A server process whose event loop a caller may hold up: GetRun of the run `stall-2500` blocks it for 2.5 seconds.

It prints its address, serves, and ends when its standard input does.
"""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator

from parley.v1 import agent_service_pb2 as pb
from parley_server.domain.context import RequestContext
from rpc.chassis import running, say_who


async def answer(context: RequestContext, request: pb.GetRunRequest) -> pb.GetRunResponse:
    word, _, milliseconds = request.run_id.partition("-")
    if word == "stall":
        time.sleep(int(milliseconds) / 1000)  # noqa: ASYNC251  # the fault under test
    return await say_who(context, request)


async def stream(_context: RequestContext, _request: pb.WatchRunRequest) -> AsyncGenerator[bytes]:
    for _ in range(100):
        yield b""
        await asyncio.sleep(0.1)


async def main() -> None:
    async with running(overload_lag_s=1.0) as chassis:
        chassis.runs.answer, chassis.runs.stream = answer, stream
        print(chassis.address, flush=True)  # noqa: T201  # for the test
        await asyncio.to_thread(sys.stdin.read)


asyncio.run(main())
