"""The Python client against the real server: what its user sees when the server dies in the middle of an answer."""

import asyncio

from parley.v1 import run_event_pb2, run_pb2
from parley_client import ParleyClient, RunStream
from run_history import check_run, text_of
from server_process import ServerProcess

LONG = "Please count to 50"


async def test_a_watching_client_goes_on_over_a_kill_to_a_coherent_end(own_server: ServerProcess) -> None:
    events: list[run_event_pb2.RunEvent] = []
    killing: asyncio.Task[None] | None = None

    async def kill_and_restart() -> None:
        own_server.kill()
        await asyncio.sleep(0.3)
        await asyncio.to_thread(own_server.start)

    async with ParleyClient(own_server.address) as parley, parley.run(LONG) as run:
        async for event in run:
            events.append(event)
            if killing is None and sum(each.HasField("text_delta") for each in events) == 5:
                killing = asyncio.create_task(kill_and_restart())
    assert killing is not None
    await killing
    check_run(events)
    assert events[-1].run_finished.state == run_pb2.RUN_STATE_SUCCEEDED
    assert any(event.HasField("attempt_restarted") for event in events)
    assert run.text == text_of(events)
    assert len(run.text) > 0


async def test_a_watching_client_goes_on_over_a_stop_and_a_start(own_server: ServerProcess) -> None:
    events: list[run_event_pb2.RunEvent] = []
    restarting: asyncio.Task[None] | None = None

    async def restart() -> None:
        assert await asyncio.to_thread(own_server.stop) == 0
        await asyncio.to_thread(own_server.start)

    async with ParleyClient(own_server.address) as parley, parley.run(LONG) as run:
        async for event in run:
            events.append(event)
            if restarting is None and event.HasField("text_delta"):
                restarting = asyncio.create_task(restart())
    assert restarting is not None
    await restarting
    check_run(events)


async def test_two_clients_follow_one_run_from_different_places(own_server: ServerProcess) -> None:
    async with ParleyClient(own_server.address) as parley:
        started = await parley.start(LONG)
        async with parley.watch(started.run_id) as first, parley.watch(started.run_id, after_seq=1) as second:
            whole, rest = await asyncio.gather(_all(first), _all(second))
    check_run(whole)
    assert rest == whole[1:]


async def _all(stream: RunStream) -> list[run_event_pb2.RunEvent]:
    return [event async for event in stream]
