"""How interceptors wrap handlers.

The chain is built once, when the server starts, around each method's handler. An error of an interceptor and one of
the handler go up the same way, so whatever stands further out sees both.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from parley_server.rpc.call import Call, Handler, Method

T = TypeVar("T")

Check = Callable[[Call], None]
AsyncCheck = Callable[[Call], Awaitable[None]]


class Interceptor(Protocol):
    """One step between the wire and the servicers."""

    def wrap(self, method: Method, inner: Handler[T]) -> Handler[T]:
        """Return a handler that does this step and then calls `inner`."""
        ...


def checked(check: Check, inner: Handler[T]) -> Handler[T]:
    """Return a handler that lets `check` have the call before `inner`; a check that raises ends the call."""

    async def handler(call: Call) -> T:
        check(call)
        return await inner(call)

    return handler


def async_checked(check: AsyncCheck, inner: Handler[T]) -> Handler[T]:
    """Do as `checked` does, for a check that has to wait for something."""

    async def handler(call: Call) -> T:
        await check(call)
        return await inner(call)

    return handler
