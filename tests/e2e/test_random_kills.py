"""A server that is killed again and again, at any moment, under clients that go on: nothing lost, nothing twice."""

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest
from e2e.test_effects import PROGRAM, SCRIPT
from model_server import ModelServer
from parley.v1 import run_event_pb2, run_pb2, tool_pb2
from parley_client import ParleyClient, ReconnectLimits
from parley_server.rpc.mapping.errors import read_run_error
from run_history import check_run
from server_process import ServerProcess

CLIENTS = 6
KILLS = 40
PATIENT = ReconnectLimits(connect_for_s=60.0, reconnect_for_s=120.0)


class Scene:
    """A server, the clients on it, and what its tools have left in the world."""

    def __init__(self, server: ServerProcess, marks_file: Path) -> None:
        self._server = server
        self._marks_file = marks_file
        self._over = False
        self.histories: list[list[run_event_pb2.RunEvent]] = []

    async def kill_again_and_again(self, seed: int) -> None:
        pauses = random.Random(seed)  # to be repeated, not to be guessed
        for _ in range(KILLS):
            await asyncio.sleep(pauses.uniform(0.05, 3.0))
            self._server.kill()
            await asyncio.to_thread(self._server.start)
        self._over = True

    async def ask_until_over(self) -> None:
        async with ParleyClient(self._server.address, reconnect=PATIENT) as parley:
            while not self._over:
                async with parley.run("all of them") as run:
                    self.histories.append([event async for event in run])

    def effects(self) -> Counter[str]:
        """Count the effects of the WRITE by their calls' keys."""
        lines = [line.split() for line in self._marks_file.read_text().splitlines()]
        return Counter(key for name, key in lines if name == "book")

    def bookings(self) -> Counter[int]:
        """Count how the calls of the WRITE ended."""
        events = [event for history in self.histories for event in history]
        finished = [event.tool_call_finished for event in events if event.HasField("tool_call_finished")]
        return Counter(call.status for call in finished if call.name == "book")


def end_of(finished: run_event_pb2.RunFinished) -> str:
    """Name how a run ended; a failed one by its reason."""
    if finished.HasField("error"):
        return read_run_error(finished.error).reason
    return run_pb2.RunState.Name(finished.state).removeprefix("RUN_STATE_")


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_is_lost_and_nothing_happens_twice(seed: int, tmp_path: Path) -> None:
    async with ModelServer(SCRIPT) as upstream:
        environment = {
            "MARKS_FILE": str(tmp_path / "marks"),
            "PARLEY_MODEL__BASE_URL": upstream.base_url,
            "PARLEY_MODEL__NAME": "scripted",
            "PARLEY_MODEL__API_KEY": "sk-test",
        }
        server = ServerProcess(tmp_path / "data", environment=environment, program=PROGRAM)
        await asyncio.to_thread(server.start)
        scene = Scene(server, tmp_path / "marks")
        try:
            await asyncio.gather(scene.kill_again_and_again(seed), *(scene.ask_until_over() for _ in range(CLIENTS)))
        finally:
            server.kill()
    for history in scene.histories:
        check_run(history)
    # A run may be cut five times before its model has answered; that is its honest end, and a rare one.
    ends = Counter(end_of(history[-1].run_finished) for history in scene.histories)
    assert ends.keys() <= {"SUCCEEDED", "ATTEMPTS_EXHAUSTED"}
    assert ends["SUCCEEDED"] > ends["ATTEMPTS_EXHAUSTED"]
    assert any(event.HasField("attempt_restarted") for history in scene.histories for event in history)
    effects, bookings = scene.effects(), scene.bookings()
    assert set(effects.values()) == {1}
    known, in_doubt = bookings[tool_pb2.TOOL_CALL_STATUS_OK], bookings[tool_pb2.TOOL_CALL_STATUS_UNKNOWN_OUTCOME]
    assert known <= effects.total() <= known + in_doubt
