"""`parley-server db backup|check|restore` in processes of their own, beside a server under load."""

import asyncio
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, Stubs, run_agent, run_spec, stubs_on, watch
from nursery import ran
from parley.v1 import agent_service_pb2, conversation_service_pb2
from run_history import check_run
from server_process import ServerProcess, running_server

STREAMS = 4


def db(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command for the database."""
    command = [sys.executable, "-m", "parley_server", "db", *arguments, "--data-dir", str(data_dir)]
    return ran(command)


class Load:
    """Runs without end, and what was acknowledged of them: runs that ended and messages that were taken."""

    def __init__(self, stubs: Stubs) -> None:
        self._stubs = stubs
        self.ended: dict[str, int] = {}
        self.accepted: set[str] = set()
        self.has_ended = asyncio.Event()

    async def run_for_ever(self) -> None:
        conversation_id = ""
        while True:
            spec = run_spec("What is 17 * 23?", conversation_id)
            request = agent_service_pb2.StartRunRequest(run=spec)
            run = (await self._stubs.agents.StartRun(request, timeout=RPC_DEADLINE_S)).run
            self.accepted.add(run.run_id)
            events = await watch(self._stubs, run.run_id)
            self.ended[run.run_id] = len(events)
            self.has_ended.set()
            conversation_id = run.conversation_id


@pytest.mark.parametrize("times", [2, pytest.param(10, marks=[pytest.mark.soak, pytest.mark.timeout(600)])])
async def test_every_backup_under_load_restores_all_that_was_acknowledged_before_it(times: int, tmp_path: Path) -> None:
    backups: list[tuple[Path, dict[str, int], set[str]]] = []
    with running_server(tmp_path / "data") as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            load = Load(stubs_on(channel))
            streams = [asyncio.create_task(load.run_for_ever()) for _ in range(STREAMS)]
            await load.has_ended.wait()
            for n in range(times):
                file = tmp_path / f"backup{n}.db"
                backups.append((file, dict(load.ended), set(load.accepted)))
                done = await asyncio.to_thread(db, server.data_dir, "backup", str(file))
                assert done.returncode == 0, done.stderr
                assert file.stat().st_mode & 0o777 == 0o600
            assert not any(stream.done() for stream in streams)
            refused = await asyncio.to_thread(db, server.data_dir, "restore", str(backups[0][0]))
            assert refused.returncode == 78
            assert "another parley-server holds" in refused.stderr
            for stream in streams:
                stream.cancel()
            await asyncio.gather(*streams, return_exceptions=True)
        server.stop()
    for file, ended, accepted in backups:
        assert db(tmp_path / "data", "check", str(file)).returncode == 0
        assert db(tmp_path / "data", "restore", str(file)).returncode == 0
        with running_server(tmp_path / "data") as server:
            async with grpc.aio.insecure_channel(server.address) as channel:
                stubs = stubs_on(channel)
                for run_id in accepted:
                    events = await watch(stubs, run_id)
                    check_run(events)
                    assert len(events) == ended.get(run_id, len(events))
                await run_agent(stubs, run_spec("What is 2 + 2?"))
            server.stop()
    assert len(list((tmp_path / "data").glob("parley.db.before-*"))) == times


async def test_a_restored_server_is_what_it_was(own_server: ServerProcess, tmp_path: Path) -> None:
    file = tmp_path / "backup.db"
    async with grpc.aio.insecure_channel(own_server.address) as channel:
        first = (await run_agent(stubs_on(channel), run_spec("What is 17 * 23?")))[0]
        assert "1 conversations, 1 runs" in db(own_server.data_dir, "backup", str(file)).stdout
        second = (await run_agent(stubs_on(channel), run_spec("What is 2 + 2?")))[0]
    own_server.kill()
    restored = db(own_server.data_dir, "restore", str(file))
    assert restored.returncode == 0, restored.stderr
    assert "the former database is" in restored.stdout
    own_server.start()
    async with grpc.aio.insecure_channel(own_server.address) as channel:
        stubs = stubs_on(channel)
        listed = conversation_service_pb2.ListMessagesRequest(conversation_id=first.conversation_id)
        assert (await stubs.conversations.ListMessages(listed, timeout=RPC_DEADLINE_S)).messages
        with pytest.raises(grpc.aio.AioRpcError) as gone:
            await watch(stubs, second.run_id)
        assert gone.value.code() is grpc.StatusCode.NOT_FOUND


def test_what_cannot_be_done_is_said_in_a_sentence(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    missing = db(data_dir, "backup", str(tmp_path / "backup.db"))
    assert (missing.returncode, missing.stderr) == (
        78,
        f"parley-server: {data_dir / 'parley.db'}: there is no such database\n",
    )
    (data_dir / "parley.db").write_bytes(b"no database at all" * 1000)
    damaged = db(data_dir, "check")
    assert damaged.returncode == 1
    assert damaged.stderr == "parley-server: file is not a database\n"
    (data_dir / "parley.toml").write_text('[storage]\nurl = "postgresql://ann@localhost/parley"\n')
    for command in (("backup", "x"), ("check",), ("restore", "x")):
        refused = db(data_dir, *command, "--config", str(data_dir / "parley.toml"))
        assert refused.returncode == 78
        assert "pg_dump" in refused.stderr
        assert "pg_restore" in refused.stderr
