"""What is kept in memory for users: keyed by the user before anything else, in a way that cannot leave him out.

A key is made of a RequestContext and of nothing else, and the containers take it first. What is kept otherwise is for
no user, and `scripts/check_caches.py` wants to know why.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator
from typing import Generic, TypeVar, final
from weakref import WeakValueDictionary

from parley_server.domain.context import RequestContext

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@final
class UserKey:
    """Whose something is: the effective user of a call's context, or of one that was stored with work for later."""

    __slots__ = ("_user_id",)

    def __init__(self, context: RequestContext) -> None:
        # For those whom no type checker stops: anything else with a user_id may have it from anybody.
        if not isinstance(context, RequestContext):
            raise TypeError(f"a user's key is made of a RequestContext, not of a {type(context).__name__}")
        self._user_id = context.user_id

    def is_of(self, user_id: str) -> bool:
        """Tell whether this is the user's key."""
        return self._user_id == user_id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UserKey) and self._user_id == other._user_id

    def __hash__(self) -> int:
        return hash(self._user_id)


class UserMap(Generic[K, V]):
    """Values of users under names of each one's own; the same name of two users is two values.

    It drops nothing by itself: whoever puts a value in takes it out when its time is over.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[UserKey, K], V] = {}

    def get(self, user: UserKey, name: K) -> V | None:
        """Return the user's value; None if there is none."""
        return self._values.get((user, name))

    def put(self, user: UserKey, name: K, value: V) -> None:
        """Keep a value in the place of the user's former one."""
        self._values[user, name] = value

    def get_or_make(self, user: UserKey, name: K, make: Callable[[], V]) -> V:
        """Return the user's value, which is made if there is none."""
        value = self._values.get((user, name))
        if value is None:
            value = self._values[user, name] = make()
        return value

    def pop(self, user: UserKey, name: K) -> V | None:
        """Let go of the user's value and return it; None if there is none."""
        return self._values.pop((user, name), None)

    def drop(self, user_id: str) -> tuple[V, ...]:
        """Let go of all that a user has, who is being erased, and return it to be closed."""
        keys = [key for key in self._values if key[0].is_of(user_id)]
        return tuple(self._values.pop(key) for key in keys)

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[V]:
        """Yield the values of all users, for what concerns them all: a limit, a stop."""
        return iter(tuple(self._values.values()))


class UserReads(Generic[K, V]):
    """Reads that a user's calls share: one that is under way, and its value while one of them has it in its hands.

    Two users never share one, whatever they read. Values are referred to weakly.
    """

    def __init__(self) -> None:
        self._turns: WeakValueDictionary[tuple[UserKey, K], asyncio.Lock] = WeakValueDictionary()
        self._values: WeakValueDictionary[tuple[UserKey, K], V] = WeakValueDictionary()

    async def get(self, user: UserKey, name: K, read: Callable[[], Awaitable[V]]) -> V:
        """Return what the user reads under a name. Raises what `read` does, to each who has called it."""
        async with self._turns.setdefault((user, name), asyncio.Lock()):
            value = self._values.get((user, name))
            if value is None:
                value = self._values[user, name] = await read()
            return value
