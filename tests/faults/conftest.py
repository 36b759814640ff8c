"""A server on a disk that fails when it is told to."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from faults.disk_faults import DiskFaults
from server_process import ServerProcess, running_server
from shim import why_not


@dataclass(frozen=True)
class FaultyServer:
    """A running server and the faults of its database's files."""

    server: ServerProcess
    faults: DiskFaults


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[FaultyServer]:
    if why_not():
        pytest.skip(why_not())
    faults = DiskFaults(tmp_path / "data" / "parley.db", tmp_path)
    with running_server(tmp_path / "data", environment=faults.environment()) as server:
        yield FaultyServer(server, faults)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server without such a disk, for a test that may kill it."""
    with running_server(tmp_path / "data") as server:
        yield server
