"""The systems that are measured: how Parley, the bare server and the upstream are started. Others are in peers.py."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from streaming.environments import CACHE
from streaming.processes import LOAD_CORE, SERVER_CORE, first_line, running

START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class System:
    """A running server. `kind` and `address` are what load.py takes; `environment` is its credential.

    `python` is the interpreter of its clients.
    """

    pid: int
    kind: str
    address: str
    environment: dict[str, str] = field(default_factory=dict)
    python: str = sys.executable


Start = Callable[[str], AbstractContextManager[System]]


@contextmanager
def start_upstream() -> Iterator[System]:
    """The model's server, on the load's core."""
    with running(LOAD_CORE, [sys.executable, "-m", "streaming.upstream"]) as process:
        yield System(process.pid, "sse", f"127.0.0.1:{first_line(process)}/v1/chat/completions")


def url(upstream: System) -> str:
    """Return what a client of OpenAI's is given as the base of its requests."""
    return f"http://{upstream.address.removesuffix('/chat/completions')}"


@contextmanager
def parley(upstream: str, source: Path | None = None, log_level: str = "error") -> Iterator[System]:
    """Parley as it is installed: an API key, SQLite with synchronous=FULL, the run log, its data beside the venv.

    `source` is a folder with another `parley_server` to take instead. What it logs goes nowhere.
    """
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as data_dir:
        where = ("--data-dir", data_dir)
        server = (sys.executable, "-m", "parley_server")
        environment = {"PARLEY_MODEL__BASE_URL": upstream, "PARLEY_MODEL__NAME": "fake", "PARLEY_MODEL__ALLOWED": "*"}
        environment["PARLEY_LOG__LEVEL"] = log_level
        if source is not None:
            environment["PYTHONPATH"] = str(source)
        key = subprocess.run(
            [*server, "keys", "create", "--user", "benchmark", *where],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
        ).stdout.strip()
        serve = [*server, "serve", "--listen", "127.0.0.1:0", *where]
        log = None if log_level == "error" else Path(os.devnull)
        with running(SERVER_CORE, serve, environment, log=log) as process:
            address = _published_address(Path(data_dir) / "server.lock", process)
            yield System(process.pid, "grpc", address, {"PARLEY_API_KEY": key})


@contextmanager
def bare_grpc(_upstream: str) -> Iterator[System]:
    """Messages of the same kind over grpc.aio, and nothing else."""
    with running(SERVER_CORE, [sys.executable, "-m", "streaming.bare_grpc_server"]) as process:
        yield System(process.pid, "grpc", f"127.0.0.1:{first_line(process)}")


def _published_address(lock: Path, process: subprocess.Popen[str]) -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        text = lock.read_text(encoding="utf-8") if lock.exists() else ""
        if text and (address := json.loads(text).get("address")):
            return str(address)
        time.sleep(0.02)
    raise RuntimeError("the server did not start")
