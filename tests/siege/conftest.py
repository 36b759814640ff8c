"""The server under siege: a process of its own, with a finished run of a long text in its store."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from e2e.conftest import run_agent, run_spec, stubs_on
from model_server import ModelServer
from server_process import ServerProcess, running_server

LONG_TEXT = {"rules": [{"text": "word " * 200_000, "chunk_size": 2_000}]}


@dataclass(frozen=True)
class Besieged:
    """A server and its long run."""

    server: ServerProcess
    run_id: str


@asynccontextmanager
async def besieged(data_dir: Path) -> AsyncIterator[Besieged]:
    """Run a server for a block."""
    async with ModelServer(LONG_TEXT) as upstream:
        environment = {"PARLEY_MODEL__BASE_URL": upstream.base_url, "PARLEY_MODEL__NAME": "long"}
        with running_server(data_dir, environment=environment) as server:
            async with grpc.aio.insecure_channel(server.address) as channel:
                events = await run_agent(stubs_on(channel), run_spec("Tell me everything"))
            yield Besieged(server, events[0].run_id)


@pytest.fixture(scope="module")
async def target(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Besieged]:
    """One server for all attacks on a small scale."""
    async with besieged(tmp_path_factory.mktemp("siege")) as running:
        yield running
