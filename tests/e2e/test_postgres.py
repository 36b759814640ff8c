"""The server on PostgreSQL, from outside: what an operator sees. That runs survive is in test_restart."""

import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from e2e.conftest import run_agent, run_spec, stubs_on
from nursery import ran
from postgres_server import PostgresServer
from run_history import check_run, text_of
from server_process import ServerProcess, running_server


@pytest.fixture
async def url(postgres: PostgresServer) -> AsyncIterator[str]:
    async with postgres.database("template1") as made:
        yield made


def command(url: str, data_dir: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `parley-server` on the database and return what became of it."""
    environment = {"PARLEY_STORAGE__URL": url, "PARLEY_HOME": str(data_dir)}
    return ran([sys.executable, "-m", "parley_server", *arguments], environment, data_dir.parent)


def refusal(url: str, data_dir: Path, *arguments: str) -> str:
    """Return the sentence with which a command ends that may not be done."""
    done = command(url, data_dir, *arguments)
    assert (done.returncode, done.stdout) == (78, "")
    assert re.fullmatch(r"parley-server: [^\n]+\n", done.stderr)
    return done.stderr


async def test_a_new_database_is_upgraded_served_and_kept_for_one_server(url: str, tmp_path: Path) -> None:
    assert "run `parley-server db upgrade`" in refusal(url, tmp_path / "a", "serve", "--listen", "127.0.0.1:0")
    assert command(url, tmp_path / "a", "db", "upgrade").returncode == 0
    with running_server(tmp_path / "a", environment={"PARLEY_STORAGE__URL": url}) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            events = await run_agent(stubs_on(channel), run_spec("What is 17 * 23?"))
        check_run(events)
        assert "391" in text_of(events)
        for line in (("serve", "--listen", "127.0.0.1:0"), ("db", "upgrade")):
            assert "another parley-server holds the database" in refusal(url, tmp_path / "b", *line)
        keys = command(url, tmp_path / "a", "keys", "create", "--user", "ann")
        assert keys.stdout.startswith("parley_")
        assert server.stop() == 0
    assert not (tmp_path / "a" / "parley.db").exists()


async def test_a_database_that_goes_away_and_comes_back_is_used_again(
    url: str, tmp_path: Path, postgres: PostgresServer
) -> None:
    assert command(url, tmp_path, "db", "upgrade").returncode == 0
    server: ServerProcess
    with running_server(tmp_path / "data", environment={"PARLEY_STORAGE__URL": url}) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stubs = stubs_on(channel)
            postgres.stop("immediate")
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await run_agent(stubs, run_spec("hello"))
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
            postgres.start()
            check_run(await run_agent(stubs, run_spec("hello")))
