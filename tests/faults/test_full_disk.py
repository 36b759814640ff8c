"""A disk that is full from any write on, and then no more: told by its own reason, and over without a restart."""

import errno
import random

import grpc
import pytest
from e2e.conftest import stubs_on
from e2e.test_store_faults import NOT_SERVING, SERVING, becomes, connected
from faults.conftest import FaultyServer
from faults.disk_faults import FOREVER, Kind
from faults.witness import Witness, check_database, read

# From its first write to be stored, a run and its neighbours make about as many.
MAX_WRITE = 60


async def test_a_full_disk_refuses_writes_until_there_is_room(faulty: FaultyServer) -> None:
    async with connected(faulty.server) as (stubs, health):
        witness = Witness(stubs)
        await witness.begin_run()
        await witness.write()
        faulty.faults.fail(Kind.WRITE, errno.ENOSPC)
        assert not await witness.write()
        await becomes(health, NOT_SERVING)
        for _ in range(3):
            assert not await witness.write()
        assert set(witness.refusals) == {"STORAGE_FULL"}
        await read(stubs, witness.kept[0])
        faulty.faults.stop()
        await becomes(health, SERVING)
        assert await witness.write()
        await witness.read_back(stubs)
    # As often as it was tried again, it is told once.
    assert faulty.server.log.count('"storage_failed"') == 1


async def _fail_from(firsts: list[int], error: int, count: int, witness: Witness, faulty: FaultyServer) -> set[str]:
    """Let writes fail from each of `firsts` on, and mend the disk after each; return the reasons that were told."""
    witness.refusals.clear()
    await witness.begin_run()
    assert await witness.write()
    for first in firsts:
        faulty.faults.fail(Kind.WRITE, error, first=first, count=count)
        while not faulty.faults.failed:
            await witness.write()
        await read(witness.stubs, witness.kept[0])
        faulty.faults.stop()
        assert await witness.write()
    return set(witness.refusals)


async def _see_that_all_is_there(witness: Witness, faulty: FaultyServer) -> None:
    """Look at what the witness was told of, in this process and in the next one."""
    logs = await witness.read_back(witness.stubs)
    faulty.server.kill()
    check_database(faulty.server)
    faulty.server.start()
    async with grpc.aio.insecure_channel(faulty.server.address) as channel:
        assert await witness.read_back(stubs_on(channel)) == logs


async def test_any_write_may_fail(faulty: FaultyServer) -> None:
    firsts = random.Random(4).sample(range(1, MAX_WRITE), 25)
    async with connected(faulty.server) as (stubs, _):
        witness = Witness(stubs)
        told = await _fail_from(firsts, errno.ENOSPC, FOREVER, witness, faulty)
        assert told <= {"STORAGE_FULL", "STORAGE_UNAVAILABLE"}
        assert await _fail_from(firsts, errno.EIO, 1, witness, faulty) <= {"STORAGE_UNAVAILABLE"}
        await _see_that_all_is_there(witness, faulty)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("error", "count"), [(errno.ENOSPC, FOREVER), (errno.EIO, FOREVER), (errno.EIO, 1)])
async def test_every_write_fails(error: int, count: int, faulty: FaultyServer) -> None:
    async with connected(faulty.server) as (stubs, _):
        witness = Witness(stubs)
        await _fail_from(list(range(1, 500)), error, count, witness, faulty)
        await _see_that_all_is_there(witness, faulty)
