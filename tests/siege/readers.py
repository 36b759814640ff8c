"""Callers who do not read what they asked for."""

import asyncio
from collections import Counter

from parley.v1 import agent_service_pb2 as pb
from siege.attack import Attack, Tally, Target
from siege.connection import FrameConnection
from siege.frames import call_frames
from siege.several import connections, tally_of

WATCH_RUN = "/parley.v1.AgentService/WatchRun"
_A_CONNECTION = 10


async def never_read(target: Target) -> Tally:
    """Watch a run of a long text, and take nothing off the connection."""
    async with connections(target, target.size // _A_CONNECTION, reads=False) as opened:
        await _watch(opened, target)
        await asyncio.sleep(target.hold_s)
        return Counter({"watches": target.size})


async def grant_no_room(target: Target) -> Tally:
    """Watch a run of a long text, read, and never grant more room than there was at first."""
    async with connections(target, target.size // _A_CONNECTION, grants=False) as opened:
        await _watch(opened, target)
        await asyncio.sleep(target.hold_s)
        return tally_of(opened) + Counter({"watches": target.size})


async def freeze(target: Target) -> Tally:
    """Watch a run of a long text from connections whose process will not run any more."""
    opened = [await FrameConnection(target.address, reads=False).__aenter__() for _ in range(target.size)]
    await _watch(opened, target)
    await asyncio.sleep(target.hold_s)
    return Counter({"connections": len(opened)})


async def _watch(opened: list[FrameConnection], target: Target) -> None:
    request = pb.WatchRunRequest(run_id=target.run_id).SerializeToString()
    for connection in opened:
        for number in range(_A_CONNECTION):
            await connection.send(call_frames(1 + 2 * number, WATCH_RUN, request))


READERS = {
    "readers who do not read": Attack(never_read, 100, "watches of a run of 2 MB on sockets nobody reads", hold_s=5),
    "readers without room": Attack(grant_no_room, 100, "watches of a run of 2 MB whose window never grows", hold_s=5),
    "frozen peers": Attack(
        freeze, 50, "connections with 10 watches each whose process is stopped (SIGSTOP)", freezes=True
    ),
}
