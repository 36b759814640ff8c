"""A sync that fails ends the process, in words and with a code, and the next process has all that was acknowledged."""

import errno
import json
import random

import grpc
import pytest
from e2e.conftest import stubs_on
from e2e.test_store_faults import connected
from faults.conftest import FaultyServer
from faults.disk_faults import FOREVER, Kind
from faults.witness import Witness, check_database

EXIT_CODE = 74


async def _lose_a_sync(first: int, count: int, faulty: FaultyServer) -> None:
    server = faulty.server
    told = server.log.count('"sync_failed"')
    async with connected(server) as (stubs, _):
        witness = Witness(stubs)
        await witness.begin_run()
        await witness.write()
        faulty.faults.fail(Kind.SYNC, errno.EIO, first=first, count=count)
        while server.is_running:
            await witness.write()
    assert server.wait() == EXIT_CODE
    assert faulty.faults.failed == 1
    lines = [json.loads(line) for line in server.log.splitlines() if '"sync_failed"' in line]
    assert len(lines) == told + 1
    assert lines[-1]["level"] == "critical"
    assert "see to the disk" in lines[-1]["hint"]
    assert "Traceback" not in server.log
    faulty.faults.stop()
    server.start()
    check_database(server)
    async with grpc.aio.insecure_channel(server.address) as channel:
        await witness.read_back(stubs_on(channel))


async def test_a_sync_that_fails_once_ends_the_process_and_nothing_else(faulty: FaultyServer) -> None:
    await _lose_a_sync(random.Random(5).randrange(2, 30), 1, faulty)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("count", [1, FOREVER])
async def test_every_sync_fails(count: int, faulty: FaultyServer) -> None:
    for first in range(1, 200):
        await _lose_a_sync(first, count, faulty)
