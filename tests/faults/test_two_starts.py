"""F30: two that may not be there together start at once. One wins; the other says so and ends with its code."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from e2e.conftest import run_agent, run_spec, stubs_on
from faults.postgres_trouble import session_on
from parley_server.storage.sql.lock_file import live_holder
from postgres_server import PostgresServer
from run_history import check_run

PATIENCE_S = 60.0
REFUSED = 78
SERVE, UPGRADE = ("serve", "--listen", "127.0.0.1:0"), ("db", "upgrade")


@dataclass
class Contender:
    """A process that wants the data; `data_dir` is its own where they meet in a database."""

    data_dir: Path
    environment: dict[str, str]

    def begin(self, *words: str) -> "subprocess.Popen[str]":
        self.data_dir.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
            [sys.executable, "-m", "parley_server", *words, "--data-dir", str(self.data_dir)],
            env={name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}
            | {"PARLEY_LOG__LEVEL": "error"}
            | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture(params=["sqlite", "postgres"])
async def contenders(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Sequence[Contender]]:
    """Two for one data directory, or for one empty database."""
    async with AsyncExitStack() as stack:
        if request.param == "sqlite":
            yield [Contender(tmp_path / "data", {})] * 2
            return
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = await stack.enter_async_context(postgres.database("template1"))
        yield [Contender(tmp_path / name, {"PARLEY_STORAGE__URL": url}) for name in "ab"]


async def told(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for a process's end; return its code and what it said."""
    _, said = await asyncio.to_thread(process.communicate, timeout=PATIENCE_S)
    return process.returncode, said


async def first_of(processes: "Sequence[subprocess.Popen[str]]") -> "subprocess.Popen[str]":
    """Wait for the first that ends."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for process in processes:
                if process.poll() is not None:
                    return process
            await asyncio.sleep(0.02)


async def address_of(contender: Contender, pid: int) -> str:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            holder = live_holder(contender.data_dir / "server.lock")
            if holder is not None and holder.pid == pid and holder.address:
                return holder.address
            await asyncio.sleep(0.02)


async def race_to_serve(contenders: Sequence[Contender]) -> None:
    processes = [contender.begin(*SERVE) for contender in contenders]
    try:
        loser = await first_of(processes)
        place = 1 - processes.index(loser)
        code, said = await told(loser)
        assert code == REFUSED
        assert said.startswith("parley-server: another parley-server holds ")
        assert said.count("\n") == 1
        async with grpc.aio.insecure_channel(await address_of(contenders[place], processes[place].pid)) as channel:
            check_run(await run_agent(stubs_on(channel), run_spec("What is 6 * 7?")))
        processes[place].terminate()
        assert (await told(processes[place]))[0] == 0
    finally:
        for process in processes:
            process.kill()


@pytest.mark.parametrize("races", [2, pytest.param(50, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
async def test_of_two_servers_one_serves(contenders: Sequence[Contender], races: int) -> None:
    assert (await told(contenders[0].begin(*UPGRADE)))[0] == 0
    for _ in range(races):
        await race_to_serve(contenders)


async def test_of_two_upgrades_each_is_done_or_refused(contenders: Sequence[Contender]) -> None:
    ends = await asyncio.gather(*(told(contender.begin(*UPGRADE)) for contender in contenders))
    assert 0 in {code for code, _ in ends}
    for code, said in ends:
        assert code == 0 or (code == REFUSED and "another parley-server holds" in said)
    assert (await told(contenders[0].begin(*UPGRADE)))[0] == 0


@pytest.mark.parametrize("races", [1, pytest.param(50, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
async def test_a_server_and_an_upgrade_never_meet(postgres: PostgresServer, tmp_path: Path, races: int) -> None:
    for race in range(races):
        async with postgres.database("template1") as url:
            server, upgrade = (Contender(tmp_path / f"{race}{name}", {"PARLEY_STORAGE__URL": url}) for name in "ab")
            serving, upgrading = server.begin(*SERVE), upgrade.begin(*UPGRADE)
            try:
                done, said = await told(upgrading)
                assert done == 0 or (done == REFUSED and "another parley-server holds" in said)
                # Whoever came too late says so; whoever serves does it on the whole schema.
                if serving.poll() is None and done == 0:
                    serving.terminate()
                code, words = await told(serving)
                assert code == 0 or (code == REFUSED and words.count("\n") == 1)
                async with session_on(url) as session:
                    tables = await session.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
                assert (tables > 0) == (done == 0)
            finally:
                serving.kill()
