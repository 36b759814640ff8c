"""The client for programs without an event loop: the same names, blocking.

    from parley_client.sync import ParleyClient

    with ParleyClient() as client, client.run("What is 17 * 23?") as run:
        for event in run:
            ...

Everything here is a face of what `parley_client` has, with its arguments, its results and its errors; the work happens
on one event loop in a thread, shared by all such clients of the process. They may be used from any thread, one stream
by one thread at a time. `on_reconnect` is called on the loop's thread and must not call the client.
"""

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from functools import wraps
from types import TracebackType
from typing import Concatenate, Generic, ParamSpec, Self, TypeVar

from parley.v1.run_event_pb2 import RunEvent, RunFinished

from parley_client import client as asynchronous
from parley_client.account import Accounts as AsyncAccounts
from parley_client.approvals import Approvals as AsyncApprovals
from parley_client.conversations import Conversations as AsyncConversations
from parley_client.errors import ParleyError
from parley_client.loop_thread import LOOP_THREAD
from parley_client.run_stream import RunStream as AsyncRunStream
from parley_client.tools import Tools as AsyncTools

__all__ = ["Accounts", "Approvals", "Conversations", "ParleyClient", "RunStream", "Tools"]

P = ParamSpec("P")
T = TypeVar("T")
AsyncT = TypeVar("AsyncT")
FaceT = TypeVar("FaceT")


class _Face(Generic[AsyncT]):
    """What blocks in front of something asynchronous."""

    def __init__(self, behind: AsyncT) -> None:
        self._behind = behind

    @property
    def behind(self) -> AsyncT:
        """The asynchronous object that does the work."""
        return self._behind


def _blocking(
    method: Callable[Concatenate[AsyncT, P], Coroutine[object, object, T]],
) -> Callable[Concatenate[_Face[AsyncT], P], T]:
    """Make the face of a method that is awaited."""

    @wraps(method)
    def face(self: _Face[AsyncT], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return LOOP_THREAD.run(method(self.behind, *args, **kwargs))

    return face


def _listing(
    method: Callable[Concatenate[AsyncT, P], AsyncGenerator[T]],
) -> Callable[Concatenate[_Face[AsyncT], P], Generator[T]]:
    """Make the face of a method that lists; pages are fetched as they are needed."""

    @wraps(method)
    def face(self: _Face[AsyncT], /, *args: P.args, **kwargs: P.kwargs) -> Generator[T]:
        items = method(self.behind, *args, **kwargs)
        try:
            while (item := LOOP_THREAD.run(_next(items))) is not None:
                yield item
        finally:
            if LOOP_THREAD.is_running:  # a loop that stops closes them itself
                LOOP_THREAD.run(items.aclose())

    return face


def _streaming(
    method: Callable[Concatenate[AsyncT, P], AsyncRunStream],
) -> Callable[Concatenate[_Face[AsyncT], P], "RunStream"]:
    """Make the face of a method that follows a run."""

    @wraps(method)
    def face(self: _Face[AsyncT], /, *args: P.args, **kwargs: P.kwargs) -> RunStream:
        return RunStream(method(self.behind, *args, **kwargs))

    return face


def _built_like(
    build: Callable[P, AsyncT],
) -> Callable[[Callable[[FaceT, AsyncT], None]], Callable[Concatenate[FaceT, P], None]]:
    """Let a face be built with the arguments of what is behind it."""

    def with_arguments(init: Callable[[FaceT, AsyncT], None]) -> Callable[Concatenate[FaceT, P], None]:
        @wraps(build)
        def face(self: FaceT, /, *args: P.args, **kwargs: P.kwargs) -> None:
            init(self, build(*args, **kwargs))

        return face

    return with_arguments


async def _next(items: AsyncGenerator[T]) -> T | None:
    return await anext(items, None)


class RunStream(_Face[AsyncRunStream]):
    """`parley_client.RunStream`, blocking: a context manager and an iterator of one run's events."""

    cancel = _blocking(AsyncRunStream.cancel)
    steer = _blocking(AsyncRunStream.steer)
    wait = _blocking(AsyncRunStream.wait)

    def __enter__(self) -> Self:
        LOOP_THREAD.run(self.behind.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        LOOP_THREAD.run(self.behind.__aexit__(kind, error, traceback))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> RunEvent:
        event = LOOP_THREAD.run(_next_event(self.behind))
        if event is None:
            raise StopIteration
        return event

    @property
    def run_id(self) -> str:
        """The run's id; known as soon as the context is entered."""
        return self.behind.run_id

    @property
    def conversation_id(self) -> str:
        """The id of the run's conversation."""
        return self.behind.conversation_id

    @property
    def last_seq(self) -> int:
        """The seq of the last event that was read; `client.watch(run_id, last_seq)` goes on from there."""
        return self.behind.last_seq

    @property
    def text(self) -> str:
        """The answer; while the run goes on, what there is of it."""
        return self.behind.text

    @property
    def output_json(self) -> str:
        """The answer as JSON that fits the schema asked for, once the run has ended; empty when there is none."""
        return self.behind.output_json

    @property
    def finished(self) -> RunFinished | None:
        """How the run ended; None until it has."""
        return self.behind.finished

    @property
    def error(self) -> ParleyError | None:
        """What went wrong, once the run has ended FAILED."""
        return self.behind.error


async def _next_event(stream: AsyncRunStream) -> RunEvent | None:
    return await anext(stream, None)


class Conversations(_Face[AsyncConversations]):
    """`parley_client.Conversations`, blocking."""

    create = _blocking(AsyncConversations.create)
    get = _blocking(AsyncConversations.get)
    list = _listing(AsyncConversations.list)
    messages = _listing(AsyncConversations.messages)


class Accounts(_Face[AsyncAccounts]):
    """`parley_client.Accounts`, blocking."""

    get = _blocking(AsyncAccounts.get)
    update = _blocking(AsyncAccounts.update)
    export = _listing(AsyncAccounts.export)
    erase = _blocking(AsyncAccounts.erase)


class Approvals(_Face[AsyncApprovals]):
    """`parley_client.Approvals`, blocking."""

    list = _listing(AsyncApprovals.list)
    get = _blocking(AsyncApprovals.get)
    approve = _blocking(AsyncApprovals.approve)
    deny = _blocking(AsyncApprovals.deny)


class Tools(_Face[AsyncTools]):
    """`parley_client.Tools`, blocking."""

    list = _listing(AsyncTools.list)
    calls = _listing(AsyncTools.calls)
    resolve = _blocking(AsyncTools.resolve)
    result = _blocking(AsyncTools.result)


class ParleyClient(_Face[asynchronous.ParleyClient]):
    """`parley_client.ParleyClient`, blocking: a connection to a server, open for the length of a `with`."""

    @_built_like(asynchronous.ParleyClient)
    def __init__(self, behind: asynchronous.ParleyClient) -> None:
        super().__init__(behind)

    def __enter__(self) -> Self:
        LOOP_THREAD.hold()
        try:
            LOOP_THREAD.run(self.behind.__aenter__())
        except BaseException:
            LOOP_THREAD.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            LOOP_THREAD.run(self.behind.__aexit__(kind, error, traceback))
        finally:
            LOOP_THREAD.release()

    run = _streaming(asynchronous.ParleyClient.run)
    watch = _streaming(asynchronous.ParleyClient.watch)
    start = _blocking(asynchronous.ParleyClient.start)
    get_run = _blocking(asynchronous.ParleyClient.get_run)
    cancel_run = _blocking(asynchronous.ParleyClient.cancel_run)
    steer_run = _blocking(asynchronous.ParleyClient.steer_run)
    list_runs = _listing(asynchronous.ParleyClient.list_runs)
    agents = _blocking(asynchronous.ParleyClient.agents)
    usage = _blocking(asynchronous.ParleyClient.usage)
    budgets = _blocking(asynchronous.ParleyClient.budgets)
    set_budget = _blocking(asynchronous.ParleyClient.set_budget)
    server_info = _blocking(asynchronous.ParleyClient.server_info)

    @property
    def target(self) -> str:
        """Where the server is."""
        return self.behind.target

    @property
    def conversations(self) -> Conversations:
        """The user's conversations."""
        return Conversations(self.behind.conversations)

    @property
    def account(self) -> Accounts:
        """What the user has told of himself, and all that the server has of him."""
        return Accounts(self.behind.account)

    @property
    def approvals(self) -> Approvals:
        """What the user is asked before tools are called."""
        return Approvals(self.behind.approvals)

    @property
    def tools(self) -> Tools:
        """The server's tools and the calls of them in the user's runs."""
        return Tools(self.behind.tools)
