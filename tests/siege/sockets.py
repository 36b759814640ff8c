"""Connections without calls."""

import asyncio
import contextlib
import socket
import struct
from collections import Counter

from siege.attack import Attack, Tally, Target
from siege.frames import PREFACE, SETTINGS, frame
from siege.several import connections, tally_of

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


async def say_nothing(target: Target) -> Tally:
    """Connect, and not even greet."""
    async with connections(target, target.size, greets=False) as opened:
        await asyncio.sleep(target.hold_s)
        return tally_of(opened)


async def greet_alone(target: Target) -> Tally:
    """Connect, greet, and call nothing."""
    async with connections(target, target.size) as opened:
        await asyncio.sleep(target.hold_s)
        return tally_of(opened)


async def come_and_go(target: Target) -> Tally:
    """Connect and disconnect, by turns at once, after the greeting, and with a reset."""
    host, _, port = target.address.rpartition(":")
    tally: Tally = Counter()
    for number in range(target.size):
        with contextlib.suppress(ConnectionError), socket.create_connection((host, int(port))) as connection:
            if number % 3:
                connection.sendall(PREFACE + frame(SETTINGS, 0, 0))
            if number % 3 == 2:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            tally["connected"] += 1
        if number % 100 == 0:
            await asyncio.sleep(0)
    return tally


SOCKETS = {
    "silent sockets": Attack(say_nothing, 200, "connections that never greet", hold_s=12),
    "greetings alone": Attack(greet_alone, 200, "connections with an HTTP/2 preface and no call", hold_s=3),
    "comings and goings": Attack(come_and_go, 10_000, "connections closed or reset at once or after the preface"),
}
