"""gRPC's asyncio side belongs to one event loop of the process; here is who has it."""

import asyncio
import threading
import weakref
from typing import Final

_lock: Final = threading.Lock()
_claims: "Final[weakref.WeakSet[LoopClaim]]" = weakref.WeakSet()


class LoopClaim:
    """One open client's hold on the running event loop.

    Clients of one loop hold it together; when the last one is closed, or the loop is, another loop may have its turn.
    Raises RuntimeError when clients are open on another loop.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        with _lock:
            if any(claim.is_held_against(self._loop) for claim in _claims):
                raise RuntimeError(
                    "a client of this process is open on another event loop, and gRPC's asyncio side belongs to one: "
                    "open all clients on the same loop, or close those of the other first"
                )
            _claims.add(self)

    def is_held_against(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Say whether this hold keeps `loop` away."""
        return self._loop is not loop and not self._loop.is_closed()

    def check(self) -> None:
        """Raise RuntimeError when the client is used on another loop than the one it was opened on."""
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(
                "the client was opened on another event loop: use it on that one, or open a client here; "
                "programs with threads have parley_client.sync"
            )

    def release(self) -> None:
        """Let go; again is no error."""
        with _lock:
            _claims.discard(self)
