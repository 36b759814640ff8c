"""The servers of GetRun that are measured, each with clients of its own."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from subprocess import Popen

import grpc
from parley.v1.agent_service_pb2 import GetRunRequest, StartRunRequest
from parley.v1.agent_service_pb2_grpc import AgentServiceStub
from parley.v1.content_pb2 import ContentPart
from parley.v1.run_pb2 import ModelOptions, RunSpec
from streaming.processes import LOAD_CORE, SERVER_CORE, cpu_s, first_line, running, tell
from streaming.script import Script
from streaming.systems import System
from unary.measurements import Seen

# An answer of some 100 characters.
_SCRIPT = Script(5)


@dataclass(frozen=True)
class Subject:
    """A server and the process of its clients."""

    pid: int
    clients: Popen[str]

    def measure(self, clients: int, calls: int) -> tuple[Seen, float]:
        """Let so many clients make so many calls; return what they saw and the server's CPU in us a call."""
        before = cpu_s(self.pid)
        tell(self.clients, f"{clients} {calls}")
        seen = Seen.from_json(first_line(self.clients))
        return seen, (cpu_s(self.pid) - before) / calls * 1e6


@contextmanager
def subject(pid: int, address: str, run_id: str, key: str | None) -> Iterator[Subject]:
    """Start clients of a server."""
    credential = {"PARLEY_API_KEY": key} if key else {}
    with running(LOAD_CORE, [sys.executable, "-m", "unary.load", address, run_id], credential) as clients:
        yield Subject(pid, clients)


@contextmanager
def step(name: str, answer_bytes: int) -> Iterator[Subject]:
    """Start a server of some of Parley's steps, and clients of it."""
    arguments = [sys.executable, "-m", "unary.step_server", name, str(answer_bytes)]
    with running(SERVER_CORE, arguments) as server:
        port, key = first_line(server).split()
        with subject(server.pid, f"127.0.0.1:{port}", "run_01K0000000000000000000000", key) as started:
            yield started


@contextmanager
def parley(system: System, key: str | None) -> Iterator[Subject]:
    """Start clients of Parley, who ask for a run of their own that has ended."""
    run_id = asyncio.run(_finished_run(system.address, key))
    with subject(system.pid, system.address, run_id, key) as started:
        yield started


async def _finished_run(address: str, key: str | None) -> str:
    metadata = (("authorization", f"Bearer {key}"),) if key else ()
    spec = RunSpec(input=[ContentPart(text="hi")], model_options=ModelOptions(model=_SCRIPT.model))
    async with grpc.aio.insecure_channel(address) as channel:
        agents = AgentServiceStub(channel)
        run = (await agents.StartRun(StartRunRequest(run=spec), metadata=metadata)).run
        while not run.HasField("finish_time"):
            await asyncio.sleep(0.05)
            run = (await agents.GetRun(GetRunRequest(run_id=run.run_id), metadata=metadata)).run
    return run.run_id
