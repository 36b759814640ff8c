"""Several connections of one attacker."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from siege.attack import Tally, Target
from siege.connection import FrameConnection


@asynccontextmanager
async def connections(
    target: Target, count: int, *, reads: bool = True, greets: bool = True, grants: bool = True
) -> AsyncIterator[list[FrameConnection]]:
    """Open so many connections, at least one, for a block."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(FrameConnection(target.address, reads=reads, greets=greets, grants=grants))
            for _ in range(max(1, count))
        ]


def tally_of(opened: Sequence[FrameConnection]) -> Tally:
    """Count what became of the connections and their streams."""
    tally: Tally = Counter()
    for connection in opened:
        tally["connections closed by the server"] += connection.closed.is_set()
        tally.update(word for word in connection.frames.elements() if word.startswith("GoAway:"))
        for answer in connection.answers.values():
            tally["reset" if answer.status is None else f"status {answer.status}"] += answer.ended
    return +tally
