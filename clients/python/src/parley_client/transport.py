"""Making calls: metadata, deadlines, and gRPC's failures as this library's errors."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Final, Protocol, TypeVar

import grpc
from grpc import aio

from parley_client.call_metadata import Caller
from parley_client.errors import CallCancelledError, ClientClosedError
from parley_client.loop_claim import LoopClaim
from parley_client.rich_status import error_of_call


class PageRequest(Protocol):
    """A request for one page of a list."""

    page_token: str


class Page(Protocol):
    """One page of a list."""

    next_page_token: str


Request = TypeVar("Request")
Response = TypeVar("Response")
ListRequest = TypeVar("ListRequest", bound=PageRequest)
ListResponse = TypeVar("ListResponse", bound=Page)

# A bound for one call of a stream and not for the run: when it passes, the stream re-attaches.
_STREAM_TIMEOUT_S: Final = 3600.0


class Transport:
    """One open channel, the caller it speaks for, and the deadline of its unary calls in seconds.

    Calls from another event loop than the one that is claimed raise RuntimeError.
    """

    def __init__(self, claim: LoopClaim, channel: aio.Channel, caller: Caller, timeout_s: float) -> None:
        self._claim = claim
        self.channel = channel
        self._caller = caller
        self._timeout_s = timeout_s

    async def close(self) -> None:
        """Close the channel, which ends its calls, and let the event loop go."""
        try:
            await self.channel.close()
        finally:
            self._claim.release()

    async def unary(self, method: aio.UnaryUnaryMultiCallable[Request, Response], request: Request) -> Response:
        """Make a unary call. Raises ParleyError."""
        self._claim.check()
        with parley_errors():
            return await method(request, metadata=self._caller.metadata(), timeout=self._timeout_s)

    async def pages(
        self, method: aio.UnaryUnaryMultiCallable[ListRequest, ListResponse], request: ListRequest
    ) -> AsyncGenerator[ListResponse]:
        """Fetch a list page by page, to its end. Raises ParleyError."""
        while True:
            page = await self.unary(method, request)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def stream(
        self, method: aio.UnaryStreamMultiCallable[Request, Response], request: Request
    ) -> aio.UnaryStreamCall[Request, Response]:
        """Open a streaming call; whoever reads it does so inside `parley_errors` and cancels it in the end."""
        self._claim.check()
        with parley_errors():
            return method(request, metadata=self._caller.metadata(), timeout=_STREAM_TIMEOUT_S)


@contextmanager
def parley_errors() -> Iterator[None]:
    """Turn what grpc.aio raises for a failed call into a ParleyError.

    grpc.aio raises CancelledError for a call that somebody else cancelled, too; only the cancellation of the task
    itself passes through.
    """
    try:
        yield
    except aio.AioRpcError as failure:
        raise error_of_call(failure) from failure
    except aio.UsageError:
        raise ClientClosedError from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise CallCancelledError(grpc.StatusCode.CANCELLED, "the call was cancelled on this side") from None
