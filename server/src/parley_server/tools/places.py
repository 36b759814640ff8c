"""Places for calls, so many at once: in one run, and of one tool for one user over all of his runs."""

import asyncio
from collections import deque
from contextlib import suppress

from parley_server.domain.context import RequestContext
from parley_server.domain.per_user import UserKey, UserMap
from parley_server.domain.tool import ToolSpec


class Places:
    """So many places, given in the order they were asked for. Unlike a semaphore's, one can be had without waiting."""

    def __init__(self, count: int) -> None:
        self._count = self._free = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def is_idle(self) -> bool:
        """Tell whether nobody has a place or waits for one."""
        return self._free == self._count and not self._waiting

    def take(self) -> bool:
        """Take a place if one is free and nobody waits for it."""
        if self._free <= 0 or self._waiting:
            return False
        self._free -= 1
        return True

    async def wait(self) -> None:
        """Take a place as soon as there is one."""
        if self.take():
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                with suppress(ValueError):  # whoever gave a place back has passed it over already
                    self._waiting.remove(turn)
            else:
                self.leave()
            raise

    def leave(self) -> None:
        """Give a place back: to who waits longest, else to whoever comes."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class UserPlaces:
    """The places of every user: so many calls of one tool at once, in whichever runs. No user waits for another."""

    def __init__(self) -> None:
        self._places: UserMap[str, Places] = UserMap()

    def take(self, user: UserKey, tool: ToolSpec) -> bool:
        """Take a place of a user's for a tool, if one is free."""
        return self._of(user, tool).take()

    async def wait(self, user: UserKey, tool: ToolSpec) -> None:
        """Take it as soon as one is free."""
        try:
            await self._of(user, tool).wait()
        except asyncio.CancelledError:
            self._drop_idle(user, tool)
            raise

    def leave(self, user: UserKey, tool: ToolSpec) -> None:
        """Give it back."""
        self._of(user, tool).leave()
        self._drop_idle(user, tool)

    def __len__(self) -> int:
        return len(self._places)

    def _of(self, user: UserKey, tool: ToolSpec) -> Places:
        return self._places.get_or_make(user, tool.name, lambda: Places(max(tool.per_user_concurrency, 1)))

    def _drop_idle(self, user: UserKey, tool: ToolSpec) -> None:
        """Keep nothing of those who have none, or the memory of it would grow with the users."""
        if self._of(user, tool).is_idle:
            self._places.pop(user, tool.name)


class RunPlaces:
    """The places of one run's calls: one of the run's and one of the user's for each."""

    def __init__(self, context: RequestContext, users: UserPlaces, count: int) -> None:
        self._user = UserKey(context)
        self._users = users
        self._own = Places(count)

    def take(self, tool: ToolSpec) -> bool:
        """Take what a call of this tool needs, if it is free."""
        if not self._users.take(self._user, tool):
            return False
        if self._own.take():
            return True
        self._users.leave(self._user, tool)
        return False

    async def wait(self, tool: ToolSpec) -> None:
        """Take it as soon as it is free. The run's last: who waits for it keeps no other tool from being called."""
        await self._users.wait(self._user, tool)
        try:
            await self._own.wait()
        except asyncio.CancelledError:
            self._users.leave(self._user, tool)
            raise

    def leave(self, tool: ToolSpec) -> None:
        """Give it back."""
        self._own.leave()
        self._users.leave(self._user, tool)
