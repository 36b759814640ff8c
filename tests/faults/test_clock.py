"""F29: the clock is set while the server runs, or the server is stopped for a while."""

import asyncio
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, Stubs, run_agent, run_spec, stubs_on, watch
from e2e.test_keys import Installation
from e2e.test_runs import cancel, start, until
from faults.clock_shift import ClockShift
from parley.v1 import agent_service_pb2 as pb
from parley.v1 import run_event_pb2, run_pb2
from parley_server.storage.slowest_clock import SlowestClock
from run_history import check_run
from server_process import ServerProcess, running_server
from shim import why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())

LONG, SHORT = "Tell me a story", "What is 6 * 7?"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
# The last is beyond the two days that request ids are kept.
SHIFTS = (HOUR, -HOUR, DAY, -DAY, 3 * DAY, -3 * DAY)
SWEEPING = {"PARLEY_RETENTION__SWEEP_INTERVAL_S": "0.1"}
# What was changed by a clock that was behind has by its own account expired since, so forward only.
EXPIRING = SWEEPING | {"PARLEY_RETENTION__CONVERSATION_TTL_S": "3000"}


@pytest.fixture
def clock(tmp_path: Path) -> ClockShift:
    return ClockShift(tmp_path)


@pytest.fixture(params=[SWEEPING], ids=["sweeping"])
def shifted(request: pytest.FixtureRequest, clock: ClockShift, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server on the clock that sweeps all the time."""
    with running_server(tmp_path / "data", environment=clock.environment() | request.param) as server:
        yield server


def in_queue(conversation_id: str, text: str, deadline: timedelta | None = None) -> run_pb2.RunSpec:
    spec = run_spec(text, conversation_id)
    if deadline is not None:
        spec.limits.deadline.FromTimedelta(deadline)
    return spec


def end_of(events: list[run_event_pb2.RunEvent]) -> int:
    check_run(events)
    return events[-1].run_finished.state


async def runs_across(stubs: Stubs, clock: ClockShift, shift: timedelta) -> list[str]:
    """Set the clock while one run works and two wait; each has the time it was given, and no other."""
    working = await start(stubs, run_spec(LONG))
    await until(stubs, working.run_id, "text_delta")
    patient = await start(stubs, in_queue(working.conversation_id, SHORT))
    hasty = await start(stubs, in_queue(working.conversation_id, LONG, timedelta(seconds=2)))
    clock.set(shift)
    await cancel(stubs, working.run_id)
    assert end_of(await watch(stubs, working.run_id)) == run_pb2.RUN_STATE_CANCELLED
    assert end_of(await watch(stubs, patient.run_id)) == run_pb2.RUN_STATE_SUCCEEDED
    assert end_of(await watch(stubs, hasty.run_id)) == run_pb2.RUN_STATE_EXPIRED
    return [working.run_id, patient.run_id, hasty.run_id]


@pytest.mark.parametrize("shifts", [(DAY, -DAY), pytest.param(SHIFTS * 3, marks=pytest.mark.soak)])
async def test_runs_have_their_time_whatever_the_clock_says(
    shifted: ServerProcess, clock: ClockShift, shifts: tuple[timedelta, ...]
) -> None:
    async with grpc.aio.insecure_channel(shifted.address) as channel:
        stubs = stubs_on(channel)
        run_ids = [run_id for shift in shifts for run_id in await runs_across(stubs, clock, shift)]
    assert run_ids == sorted(set(run_ids))


@pytest.mark.parametrize(
    ("shifted", "shifts"), [(SWEEPING, SHIFTS), (EXPIRING, (HOUR, DAY, 3 * DAY))], indirect=["shifted"]
)
async def test_what_is_young_is_kept_whatever_the_clock_says(
    shifted: ServerProcess, clock: ClockShift, shifts: tuple[timedelta, ...]
) -> None:
    async with grpc.aio.insecure_channel(shifted.address) as channel:
        stubs = stubs_on(channel)
        kept = {}
        for number, shift in enumerate((timedelta(), *shifts)):
            clock.set(shift)
            kept[f"key-{number}"] = await run_agent(stubs, run_spec(SHORT), f"key-{number}")
            await asyncio.sleep(0.3)
        clock.set(timedelta())
        for request_id, events in kept.items():
            assert await run_agent(stubs, run_spec(SHORT), request_id) == events
        listed = await stubs.agents.ListRuns(pb.ListRunsRequest(), timeout=RPC_DEADLINE_S)
        assert {run.run_id for run in listed.runs} == {events[0].run_id for events in kept.values()}


async def test_a_key_goes_by_the_clock(shifted: ServerProcess, clock: ClockShift) -> None:
    installation = Installation(shifted, {})
    secret = installation.keys("create", "--user", "ann", "--expires", "30m")
    assert await installation.works(secret)
    clock.set(HOUR)
    await installation.ends(secret)
    clock.set(timedelta())
    assert await installation.works(secret)


def test_the_slowest_clock_goes_on_and_never_back() -> None:
    clock = SlowestClock()
    times = [clock.now() for _ in range(1000)]
    assert times == sorted(times)


@pytest.mark.parametrize("stopped_s", [3, pytest.param(20, marks=pytest.mark.soak)])
async def test_a_stopped_server_goes_on_and_ends_what_is_over(tmp_path: Path, stopped_s: int) -> None:
    with running_server(tmp_path / "data") as server:
        await follow_across_a_stop(server, stopped_s)


async def follow_across_a_stop(server: ServerProcess, stopped_s: int) -> None:
    async with grpc.aio.insecure_channel(server.address) as channel:
        stubs = stubs_on(channel)
        followed = asyncio.create_task(run_agent(stubs, run_spec(LONG)))
        hasty = await start(stubs, in_queue("", LONG, timedelta(seconds=stopped_s - 1)))
        server.signal(signal.SIGSTOP)
        await asyncio.sleep(stopped_s)
        server.signal(signal.SIGCONT)
        assert end_of(await watch(stubs, hasty.run_id)) == run_pb2.RUN_STATE_EXPIRED
        assert end_of(await followed) == run_pb2.RUN_STATE_SUCCEEDED
