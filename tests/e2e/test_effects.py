"""The effects of tools when a real server dies: what happened, what is repeated, and what the user is told of it."""

import asyncio
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, Stubs, run_spec, stubs_on, watch
from model_server import ModelServer
from parley.v1 import agent_service_pb2, run_event_pb2, run_pb2, tool_pb2
from postgres_server import PostgresServer
from run_history import check_run
from server_process import ServerProcess

PROGRAM = (sys.executable, str(Path(__file__).with_name("marking_server.py")))
SCRIPT = {
    "rules": [
        *(
            {
                "when": rf"^{name} (?P<moment>\w+)",
                "text": "Let me see.",
                "tool_calls": [{"name": name, "arguments": {"moment": "{moment}"}}],
                "chunk_delay_ms": 5,
            }
            for name in ("read", "put", "book")
        ),
        {"when": "^all", "text": "All of it.", "tool_calls": [{"name": name} for name in ("read", "put", "book")]},
        {"after_tool": "*", "text": "That is all there is to say.", "chunk_delay_ms": 20},
    ]
}


@dataclass
class Marked:
    """A server with tools that leave marks, which may be killed."""

    server: ServerProcess
    marks_file: Path

    def marks(self, name: str) -> list[str]:
        """Return the keys of a tool's effects, in order."""
        lines = self.marks_file.read_text().splitlines() if self.marks_file.exists() else []
        return [key for tool, key in map(str.split, lines) if tool == name]

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.server.address, options=[("grpc.max_reconnect_backoff_ms", 200)])


@pytest.fixture
async def marked(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Marked]:
    marks_file = tmp_path / "marks"
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(ModelServer(SCRIPT))
        environment = {
            "MARKS_FILE": str(marks_file),
            "PARLEY_MODEL__BASE_URL": upstream.base_url,
            "PARLEY_MODEL__NAME": "scripted",
            "PARLEY_MODEL__API_KEY": "sk-test",
        }
        if request.param == "postgres":
            postgres: PostgresServer = request.getfixturevalue("postgres")
            environment["PARLEY_STORAGE__URL"] = await stack.enter_async_context(postgres.database())
        server = ServerProcess(tmp_path / "data", environment=environment, program=PROGRAM)
        await asyncio.to_thread(server.start)
        stack.callback(lambda: server.kill() if server.is_running else None)
        yield Marked(server, marks_file)


async def start(stubs: Stubs, text: str) -> str:
    request = agent_service_pb2.StartRunRequest(run=run_spec(text))
    return (await stubs.agents.StartRun(request, timeout=RPC_DEADLINE_S)).run.run_id


async def after_restart(marked: Marked, run_id: str) -> list[run_event_pb2.RunEvent]:
    """Start the server again, follow the run to its end and check that it kept the contract."""
    await asyncio.to_thread(marked.server.start)
    async with marked.channel() as channel:
        events = await watch(stubs_on(channel), run_id)
        check_run(events)
        assert await watch(stubs_on(channel), run_id) == events
    return events


def statuses(events: list[run_event_pb2.RunEvent]) -> dict[str, str]:
    """Tell how the calls ended, by tool."""
    finished = [event.tool_call_finished for event in events if event.HasField("tool_call_finished")]
    prefix = "TOOL_CALL_STATUS_"
    return {call.name: tool_pb2.ToolCallStatus.Name(call.status).removeprefix(prefix) for call in finished}


@pytest.mark.parametrize(
    ("marked", "text", "status", "times"),
    [
        ("sqlite", "read before", "OK", 1),
        ("sqlite", "read after", "OK", 2),
        ("sqlite", "put before", "OK", 1),
        ("sqlite", "put after", "OK", 2),
        ("sqlite", "book before", "UNKNOWN_OUTCOME", 0),
        ("sqlite", "book after", "UNKNOWN_OUTCOME", 1),
        ("postgres", "put after", "OK", 2),
        ("postgres", "book after", "UNKNOWN_OUTCOME", 1),
    ],
    indirect=["marked"],
)
async def test_a_tool_that_takes_the_server_down(text: str, status: str, times: int, marked: Marked) -> None:
    name = text.split(maxsplit=1)[0]
    async with marked.channel() as channel:
        run_id = await start(stubs_on(channel), text)
        assert await asyncio.to_thread(marked.server.wait) == -signal.SIGKILL
    events = await after_restart(marked, run_id)
    assert events[-1].run_finished.state == run_pb2.RUN_STATE_SUCCEEDED
    assert statuses(events) == {name: status}
    keys = marked.marks(name)
    assert (len(keys), len(set(keys))) == (times, min(times, 1))


@pytest.mark.parametrize(
    ("marked", "moment"),
    [
        ("sqlite", "run_accepted"),
        ("sqlite", "run_started"),
        ("sqlite", "text_delta"),
        ("sqlite", "message_completed"),
        ("sqlite", "tool_call_started"),
        ("sqlite", "tool_call_finished"),
        ("postgres", "run_accepted"),
        ("postgres", "tool_call_started"),
    ],
    indirect=["marked"],
)
async def test_a_kill_when_a_client_has_seen_an_event(moment: str, marked: Marked) -> None:
    seen: list[run_event_pb2.RunEvent] = []
    async with marked.channel() as channel:
        request = agent_service_pb2.RunAgentRequest(run=run_spec("all of them"))
        async for response in stubs_on(channel).agents.RunAgent(request, timeout=RPC_DEADLINE_S):
            seen.append(response.event)
            if response.event.HasField(moment):  # type: ignore[arg-type]  # one of the oneof's members
                marked.server.kill()
                break
    events = await after_restart(marked, seen[0].run_id)
    assert events[: len(seen)] == seen
    assert events[-1].run_finished.state == run_pb2.RUN_STATE_SUCCEEDED
    ended = statuses(events)
    assert (ended["read"], ended["put"]) == ("OK", "OK")
    assert ended["book"] in ("OK", "UNKNOWN_OUTCOME")
    times = Counter({name: len(marked.marks(name)) for name in ended})
    assert times["book"] <= 1
    assert times["book"] == 1 or ended["book"] == "UNKNOWN_OUTCOME"
    assert len(set(marked.marks("put"))) == 1


@pytest.mark.parametrize("marked", ["sqlite"], indirect=True)
async def test_a_cancel_leaves_a_write_the_time_to_be_known(marked: Marked) -> None:
    async with marked.channel() as channel:
        stubs = stubs_on(channel)
        run_id = await start(stubs, "book slowly")
        await asyncio.to_thread(wait_for_mark, marked, "begun")
        await stubs.agents.CancelRun(agent_service_pb2.CancelRunRequest(run_id=run_id), timeout=RPC_DEADLINE_S)
        events = await watch(stubs, run_id)
    check_run(events)
    assert events[-1].run_finished.state == run_pb2.RUN_STATE_CANCELLED
    assert statuses(events) == {"book": "OK"}
    assert len(marked.marks("book")) == 1


@pytest.mark.parametrize("marked", ["sqlite"], indirect=True)
async def test_a_stop_leaves_a_write_the_time_to_be_known(marked: Marked) -> None:
    async with marked.channel() as channel:
        run_id = await start(stubs_on(channel), "book slowly")
        await asyncio.to_thread(wait_for_mark, marked, "begun")
    assert await asyncio.to_thread(marked.server.stop) == 0
    events = await after_restart(marked, run_id)
    assert events[-1].run_finished.state == run_pb2.RUN_STATE_SUCCEEDED
    assert statuses(events) == {"book": "OK"}
    assert len(marked.marks("book")) == 1


def wait_for_mark(marked: Marked, name: str) -> None:
    for _ in range(1000):
        if marked.marks(name):
            return
        time.sleep(0.02)
    pytest.fail(f"no mark {name}")
