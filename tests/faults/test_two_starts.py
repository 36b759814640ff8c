"""F30: two that may not be there together start at once. One wins; the other says so and ends with its code."""

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from e2e.conftest import run_agent, run_spec, stubs_on
from nursery import Seedling, begun
from parley_server.storage.sql.lock_file import live_holder
from postgres_server import PostgresServer, session_on
from run_history import check_run

PATIENCE_S = 60.0
REFUSED = 78
SERVE, UPGRADE = ("serve", "--listen", "127.0.0.1:0"), ("db", "upgrade")


@dataclass
class Contender:
    """A process that wants the data; `data_dir` is its own where they meet in a database."""

    data_dir: Path
    environment: dict[str, str]

    def begin(self, *words: str) -> "Begun":
        self.data_dir.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "parley_server", *words, "--data-dir", str(self.data_dir)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}
        environment |= {"PARLEY_LOG__LEVEL": "error"} | self.environment
        said = self.data_dir / f"said-{uuid.uuid4().hex}"
        return Begun(begun(command, environment, self.data_dir, Path(os.devnull), said), said)


@dataclass(frozen=True)
class Begun:
    """A process of a contender, and the file with what it says."""

    process: "subprocess.Popen[bytes] | Seedling"
    said: Path


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


async def told(of: Begun) -> tuple[int, str]:
    """Wait for a process's end; return its code and what it said."""
    code = await asyncio.to_thread(of.process.wait, PATIENCE_S)
    return code, of.said.read_text("utf-8")


async def first_of(contest: Sequence[Begun]) -> Begun:
    """Wait for the first that ends."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            for each in contest:
                if each.process.poll() is not None:
                    return each
            await asyncio.sleep(0.02)


async def address_of(winner: Begun) -> str:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            holder = live_holder(winner.said.with_name("server.lock"))
            if holder is not None and holder.pid == winner.process.pid and holder.address:
                return holder.address
            await asyncio.sleep(0.02)


async def race_to_serve(contenders: Sequence[Contender]) -> None:
    contest = [contender.begin(*SERVE) for contender in contenders]
    try:
        loser = await first_of(contest)
        winner = contest[1 - contest.index(loser)]
        code, said = await told(loser)
        assert code == REFUSED
        assert said.startswith("parley-server: another parley-server holds ")
        assert said.count("\n") == 1
        async with grpc.aio.insecure_channel(await address_of(winner)) as channel:
            check_run(await run_agent(stubs_on(channel), run_spec("What is 6 * 7?")))
        winner.process.send_signal(signal.SIGTERM)
        assert (await told(winner))[0] == 0
    finally:
        for each in contest:
            each.process.send_signal(signal.SIGKILL)


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
                if serving.process.poll() is None and done == 0:
                    serving.process.send_signal(signal.SIGTERM)
                code, words = await told(serving)
                assert code == 0 or (code == REFUSED and words.count("\n") == 1)
                async with session_on(url) as session:
                    tables = await session.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
                assert (tables > 0) == (done == 0)
            finally:
                serving.process.send_signal(signal.SIGKILL)
