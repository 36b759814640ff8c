"""How many messages of one connection may be on their way into memory at once.

The core grants a call whose message is awaited the room for all of it. Without a bound, one connection makes the server
hold as many of the largest messages as it may have calls open, a gigabyte, and keeps the last byte of each to itself.
A call that waits for its slot is granted only the core's small first window, and delays nobody but its own connection.
"""

import asyncio
from weakref import WeakValueDictionary


class MessageSlots:
    """Hands out the slots of each connection, in the order they are asked for."""

    def __init__(self, per_connection: int) -> None:
        self._per_connection = per_connection
        # Weak: a connection is known only while one of its calls holds or awaits a slot.
        self._connections: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def of(self, peer: str) -> asyncio.Semaphore:
        """Return the slots of the connection from `peer`, to be entered for as long as a message is awaited."""
        slots = self._connections.get(peer)
        if slots is None:
            slots = self._connections[peer] = asyncio.Semaphore(self._per_connection)
        return slots
