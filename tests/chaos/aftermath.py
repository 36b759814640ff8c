"""What is there once the server is left alone: every run to its end, read twice, and every conversation."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from chaos.users import CALL_TIMEOUT_S, LABEL, User
from parley.v1 import agent_service_pb2, conversation_pb2, conversation_service_pb2, run_event_pb2, run_pb2

_PAGE = 500
_AT_ONCE = 16


@dataclass(frozen=True)
class FinalRun:
    """A run as GetRun tells it, and its log as two readers got it."""

    run: run_pb2.Run
    events: list[run_event_pb2.RunEvent]
    again: list[run_event_pb2.RunEvent]

    @property
    def request_id(self) -> str:
        """The request that asked for it."""
        return self.run.labels[LABEL]


@dataclass
class Aftermath:
    """All that the users have: runs by id, messages by conversation; and what could not be read, in words."""

    runs: dict[str, FinalRun] = field(default_factory=dict)
    messages: dict[str, list[conversation_pb2.Message]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)


async def look(users: Sequence[User]) -> Aftermath:
    """Wait for every run's end and read everything."""
    aftermath = Aftermath()
    slots = asyncio.Semaphore(_AT_ONCE)
    async with asyncio.TaskGroup() as tasks:
        for user in users:
            tasks.create_task(_look_for(user, aftermath, slots))
    return aftermath


async def _look_for(user: User, aftermath: Aftermath, slots: asyncio.Semaphore) -> None:
    async def read(run: run_pb2.Run) -> None:
        async with slots:
            with _noting(aftermath, run.run_id):
                aftermath.runs[run.run_id] = await _read(user, run.run_id)

    with _noting(aftermath, user.name):
        listed = await _list_runs(user)
        await asyncio.gather(*map(read, listed))
        for conversation_id in {run.conversation_id for run in listed}:
            aftermath.messages[conversation_id] = await _list_messages(user, conversation_id)


@contextmanager
def _noting(aftermath: Aftermath, what: str) -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        aftermath.unreadable.append(f"{what}: {error.code().name}: {error.details()}")


async def _read(user: User, run_id: str) -> FinalRun:
    events, again = await _watch(user, run_id), await _watch(user, run_id)
    request = agent_service_pb2.GetRunRequest(run_id=run_id)
    told = await user.stubs.agents.GetRun(request, timeout=CALL_TIMEOUT_S, metadata=user.metadata)
    return FinalRun(told.run, events, again)


async def _watch(user: User, run_id: str) -> list[run_event_pb2.RunEvent]:
    request = agent_service_pb2.WatchRunRequest(run_id=run_id)
    call = user.stubs.agents.WatchRun(request, timeout=2 * CALL_TIMEOUT_S, metadata=user.metadata)
    return [answer.event async for answer in call if answer.event.seq]


async def _list_runs(user: User) -> list[run_pb2.Run]:
    listed: list[run_pb2.Run] = []
    request = agent_service_pb2.ListRunsRequest(page_size=_PAGE)
    while True:
        page = await user.stubs.agents.ListRuns(request, timeout=CALL_TIMEOUT_S, metadata=user.metadata)
        listed += page.runs
        request.page_token = page.next_page_token
        if not request.page_token:
            return listed


async def _list_messages(user: User, conversation_id: str) -> list[conversation_pb2.Message]:
    listed: list[conversation_pb2.Message] = []
    request = conversation_service_pb2.ListMessagesRequest(conversation_id=conversation_id, page_size=_PAGE)
    while True:
        page = await user.stubs.conversations.ListMessages(request, timeout=CALL_TIMEOUT_S, metadata=user.metadata)
        listed += page.messages
        request.page_token = page.next_page_token
        if not request.page_token:
            return listed
