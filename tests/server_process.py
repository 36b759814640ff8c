"""A real parley-server in a process of its own, for tests that watch it from outside, kill it and start it again."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lasting_port import lasting_port
from nursery import Seedling, begun

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
# A machine that others use holds the server up, too, and what it refuses then says nothing of what a test does.
NEVER_BEHIND = {"PARLEY_SERVER__OVERLOAD_LAG_S": "60"}


class ServerProcess:
    """`parley-server serve` on a data directory; after `kill` or `stop`, `start` serves the same address again."""

    def __init__(
        self,
        data_dir: Path,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        log: Path | None = None,
        program: Sequence[str] = (sys.executable, "-m", "parley_server"),
    ) -> None:
        self.data_dir = data_dir
        self.address = f"127.0.0.1:{lasting_port()}"
        self._program = list(program)
        self._arguments = list(arguments)
        self.environment = {**_clean_environment(), **(environment or {})}
        self._log = log or data_dir / "test-server.log"
        self._process: subprocess.Popen[bytes] | Seedling | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """All that the server has written to its output."""
        return self._log.read_text(encoding="utf-8")

    def start(self) -> None:
        """Start it and wait until it says where it listens, which it does once it serves."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        command = [*self._program, "serve", "--listen", self.address]
        command += ["--data-dir", str(self.data_dir), *self._arguments]
        self._process = begun(command, self.environment, self.data_dir, self._log, self._log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (address := self._published_address()):
            assert self._process.poll() is None, f"the server ended:\n{self.log}"
            assert time.monotonic() < deadline, f"the server did not start:\n{self.log}"
            time.sleep(0.02)
        self.address = address

    def kill(self) -> None:
        """End it as a crash does: SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it as an operator does: SIGTERM. Returns its exit code."""
        return self._end(signal.SIGTERM)

    def signal(self, number: int) -> None:
        """Send any other signal."""
        os.kill(self.pid, number)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait for its end; returns its exit code."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _end(self, number: int) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self.wait()

    def _published_address(self) -> str:
        with contextlib.suppress(OSError, ValueError):
            content = json.loads((self.data_dir / "server.lock").read_text(encoding="utf-8"))
            if content.get("pid") == self.pid:
                return str(content.get("address", ""))
        return ""


@contextlib.contextmanager
def running_server(
    data_dir: Path, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Iterator[ServerProcess]:
    """Run a server for a block."""
    server = ServerProcess(data_dir, arguments, environment)
    server.start()
    try:
        yield server
    finally:
        if server.is_running:
            server.kill()


def _clean_environment() -> dict[str, str]:
    """Drop what would connect the tests to somebody's real model or server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "PARLEY_"))}
    return kept | NEVER_BEHIND
