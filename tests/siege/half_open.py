"""Calls that are begun and not ended."""

import asyncio
from collections import Counter

from siege.attack import Attack, Tally, Target
from siege.connection import FrameConnection
from siege.frames import DATA, MAX_FRAME_BYTES, call_frames, frame, message
from siege.several import connections, tally_of

GET_RUN = "/parley.v1.AgentService/GetRun"
# Anybody may call this one.
HEALTH = "/grpc.health.v1.Health/Check"
STREAMS = 500
LARGEST = 4 * 1024 * 1024 - 1
_CHUNK = bytes(MAX_FRAME_BYTES)


async def headers_alone(target: Target) -> Tally:
    """Open calls and send no message, more a connection than the server allows."""
    async with connections(target, target.size // STREAMS) as opened:
        for connection in opened:
            await connection.send(b"".join(call_frames(1 + 2 * number, GET_RUN, None) for number in range(STREAMS)))
        await asyncio.sleep(target.hold_s)
        return tally_of(opened)


async def dribble(target: Target) -> Tally:
    """Send a message a byte at a time, and never all of it."""
    async with FrameConnection(target.address) as connection:
        streams = range(1, 2 * target.size, 2)
        for stream in streams:
            await connection.send(call_frames(stream, GET_RUN, None))
        for byte in message(bytes(60), length=4096)[: int(target.hold_s / 0.2) + 1]:
            await connection.send(b"".join(frame(DATA, 0, stream, bytes([byte])) for stream in streams))
            await asyncio.sleep(0.2)
        return tally_of([connection])


async def withhold_the_last_byte(target: Target) -> Tally:
    """Send messages of the largest size, all but the end, as far as the server grants room."""
    async with connections(target, target.size // 250) as opened:
        await asyncio.gather(*(withhold(connection, target.size // len(opened)) for connection in opened))
        await asyncio.sleep(target.hold_s)
        sent = Counter({"MiB sent": sum(connection.sent_bytes for connection in opened) >> 20})
        return tally_of(opened) + sent


async def withhold(connection: FrameConnection, streams: int) -> None:
    """Send all but the end of a message on each of so many streams, until there is no more room for a while."""
    ids = range(1, 2 * streams, 2)
    left = dict.fromkeys(ids, LARGEST - 100)
    for stream in ids:
        await connection.send(call_frames(stream, HEALTH, None))
        await connection.send_data(stream, message(b"", length=LARGEST))
    quiet = 0
    while quiet < 20 and not connection.closed.is_set():
        quiet += 1
        for stream in ids:
            room = connection.room(stream, min(left[stream], len(_CHUNK)))
            if room and await connection.send_data(stream, _CHUNK[:room]):
                left[stream] -= room
                quiet = 0
        await asyncio.sleep(0.01)


HALF_OPEN = {
    "half-open streams": Attack(
        headers_alone,
        10_000,
        "calls without a message, 500 on each of 20 connections",
        hold_s=12,
        max_growth_mib=256,
    ),
    "dribbled messages": Attack(dribble, 200, "messages that come a byte at a time and never end", hold_s=12),
    "withheld messages": Attack(
        withhold_the_last_byte,
        1_000,
        "messages of 4 MiB, all but the end, to a method that needs no credential, on 4 connections",
        hold_s=12,
        max_growth_mib=600,
    ),
}
