"""What a real server tells its operator: numbers, readiness and a log that may be full."""

import asyncio
import fcntl
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from e2e.conftest import RPC_DEADLINE_S, run_agent, run_spec, stubs_on
from parley.v1 import admin_service_pb2, agent_service_pb2
from prometheus_client.parser import text_string_to_metric_families
from server_process import ServerProcess, running_server

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "guides" / "operations.md"
ROW = re.compile(
    r"^\| `(?P<name>\w+)` \| (?P<kind>counter|gauge|histogram) \|[^|]*\| (?P<text>[^|]+) \|$", re.MULTILINE
)
CALLS = 200


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    environment = {"PARLEY_METRICS__LISTEN": "127.0.0.1:0"}
    with running_server(tmp_path_factory.mktemp("watched"), environment=environment) as server:
        yield server


def page(server: ServerProcess, path: str) -> tuple[int, str]:
    serving = serving_line(server)
    try:
        with urllib.request.urlopen(f"http://{serving['metrics']}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def lines(server: ServerProcess) -> list[dict[str, object]]:
    return [json.loads(line) for line in server.log.splitlines()]


def serving_line(server: ServerProcess) -> dict[str, object]:
    """Wait for the line, which is written a moment after the server has told its address."""
    deadline = time.monotonic() + 10
    while True:
        whole = server.log.rpartition("\n")[0].splitlines()
        found: list[dict[str, object]] = [
            json.loads(line) for line in whole if '"event":"serving"' in line.replace(" ", "")
        ]
        if found or time.monotonic() > deadline:
            (serving,) = found
            return serving
        time.sleep(0.02)


def number(server: ServerProcess, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(page(server, "/metrics")[1])
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def test_it_is_alive_and_ready(watched: ServerProcess) -> None:
    assert page(watched, "/healthz") == (200, "alive\n")
    assert page(watched, "/readyz") == (200, "ready\n")


def test_the_guide_has_every_metric_with_its_meaning(watched: ServerProcess) -> None:
    families = text_string_to_metric_families(page(watched, "/metrics")[1])
    served = {
        (family.name + ("_total" if family.type == "counter" else ""), family.type, family.documentation)
        for family in families
        if family.name.startswith(("grpc_", "parley_"))
    }
    told = {(row["name"], row["kind"], row["text"]) for row in ROW.finditer(OPERATIONS.read_text(encoding="utf-8"))}
    assert served == told


async def test_a_run_and_its_calls_are_counted(watched: ServerProcess) -> None:
    accepted = number(watched, "parley_runs_accepted_total")
    async with grpc.aio.insecure_channel(watched.address) as channel:
        stubs = stubs_on(channel)
        events = await run_agent(stubs, run_spec("What is 17 * 23?"))
        assert number(watched, "parley_runs_accepted_total") == accepted + 1
        assert number(watched, "parley_runs_ended_total", state="succeeded") == 1
        assert number(watched, "grpc_server_handled_total", grpc_method="RunAgent", grpc_code="OK") == 1
        assert number(watched, "grpc_server_msg_sent_total", grpc_method="RunAgent") >= len(events)
        assert number(watched, "parley_run_log_commit_seconds_count") > 0
        assert number(watched, "parley_run_journal_rows_total", change="written") > 0
        for gauge in ("parley_runs_live", "parley_runs_queued", "parley_run_log_watchers", "parley_overloaded"):
            assert number(watched, gauge) == 0
        assert number(watched, "process_open_fds") > 0


async def test_a_cancelled_run_is_an_answer_to_whoever_cancels_and_to_whoever_watches(watched: ServerProcess) -> None:
    async with grpc.aio.insecure_channel(watched.address) as channel:
        stubs = stubs_on(channel)
        request = agent_service_pb2.RunAgentRequest(run=run_spec("Please count to 50"))
        call = stubs.agents.RunAgent(request, timeout=RPC_DEADLINE_S)
        run_id = (await anext(aiter(call))).event.run_id
        assert number(watched, "parley_runs_live") == 1
        assert number(watched, "parley_run_log_watchers") == 1
        await stubs.agents.CancelRun(agent_service_pb2.CancelRunRequest(run_id=run_id), timeout=RPC_DEADLINE_S)
        async for _ in call:
            pass
    assert number(watched, "parley_runs_ended_total", state="cancelled") == 1
    ends = {(line["method"], line["end"], line["code"]) for line in lines(watched) if line["event"] == "call"}
    assert ("/parley.v1.AgentService/CancelRun", "ok", "OK") in ends
    assert {end for _, end, _ in ends} == {"ok"}


async def test_what_a_user_says_is_not_in_the_log(watched: ServerProcess) -> None:
    async with grpc.aio.insecure_channel(watched.address) as channel:
        await run_agent(stubs_on(channel), run_spec("What is 4242 + 1? zanzibar"))
    assert "zanzibar" not in watched.log
    assert "4242" not in watched.log


async def serve_and_stop(server: ServerProcess) -> None:
    server.start()
    try:
        await make_many_calls(server.address)
        assert server.stop() == 0
    finally:
        if server.is_running:
            server.kill()


async def make_many_calls(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stubs = stubs_on(channel)
        request = admin_service_pb2.GetServerInfoRequest()
        await asyncio.gather(*(stubs.admin.GetServerInfo(request, timeout=RPC_DEADLINE_S) for _ in range(CALLS)))
        await run_agent(stubs, run_spec("What is 17 * 23?"))


async def test_a_log_that_nobody_reads_holds_up_nobody(tmp_path: Path) -> None:
    pipe = tmp_path / "log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    await serve_and_stop(ServerProcess(tmp_path / "data", log=pipe))
    os.close(reader)


async def test_a_server_without_standard_error_serves(tmp_path: Path) -> None:
    program = ("/bin/sh", "-c", 'exec "$0" -m parley_server "$@" 2>&-', sys.executable)
    await serve_and_stop(ServerProcess(tmp_path / "data", program=program))
    with (tmp_path / "data" / "parley.db").open("rb") as database:
        assert database.read(6) == b"SQLite"


def test_where_nothing_is_said_nothing_is_served_over_http(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as server:
        assert serving_line(server)["metrics"] == ""
