"""The signals of a serving process, at every moment of its life."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from parley_client.sync import ParleyClient
from server_process import ServerProcess, running_server

# From the first one on, in the imports, at the database and past the listener.
MOMENTS = [
    (0.0, signal.SIGTERM),
    (0.1, signal.SIGINT),
    (0.3, signal.SIGTERM),
    (0.6, signal.SIGINT),
    (0.9, signal.SIGTERM),
]


@contextmanager
def starting_server(data_dir: Path) -> Iterator["subprocess.Popen[str]"]:
    """Start a server and give it away as soon as it catches signals."""
    command = [sys.executable, "-m", "parley_server", "serve", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "PARLEY_"))}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, encoding="utf-8") as process:
        try:
            while not catches(process.pid, signal.SIGTERM):
                assert process.poll() is None
                time.sleep(0.001)
            yield process
        finally:
            process.kill()


def catches(pid: int, number: int) -> bool:
    """Tell whether a process has a handler for a signal."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)", status, re.MULTILINE)
    assert caught is not None
    return bool(int(caught[1], 16) >> (number - 1) & 1)


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="sees the handlers in /proc")


@needs_proc
@pytest.mark.parametrize(("moment_s", "number"), MOMENTS)
def test_a_start_that_is_interrupted_ends_cleanly(tmp_path: Path, moment_s: float, number: signal.Signals) -> None:
    with starting_server(tmp_path) as process:
        time.sleep(moment_s)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


@needs_proc
def test_a_hangup_in_the_middle_of_a_start_changes_nothing(tmp_path: Path) -> None:
    with starting_server(tmp_path) as process:
        for _ in range(30):
            process.send_signal(signal.SIGHUP)
            time.sleep(0.025)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, "Traceback" in errors) == (0, False)


def wait_for_log(server: ServerProcess, words: str, count: int = 1) -> None:
    while server.log.count(words) < count:
        assert server.is_running
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_stop_waits_for_nothing(tmp_path: Path, number: signal.Signals) -> None:
    environment = {"PARLEY_SERVER__DRAIN_DELAY_S": "600"}
    with running_server(tmp_path, environment=environment) as server, ParleyClient(server.address) as client:
        with client.run("Tell me a story") as run:
            next(run)
            server.signal(number)
            wait_for_log(server, "stopping")
            server.signal(number)
            assert server.wait() == 130
        assert "Traceback" not in server.log


def test_hangups_end_no_server_and_no_stream(own_server: ServerProcess) -> None:
    with ParleyClient(own_server.address) as client, client.run("Tell me a story") as run:
        next(run)
        for count in range(5):
            own_server.signal(signal.SIGHUP)
            wait_for_log(own_server, '"reloaded"', count + 1)
        assert run.wait().error.code == 0
    assert own_server.stop() == 0
    assert "Traceback" not in own_server.log
