"""The systems that are measured: how each is started, and how its streams are asked for."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from streaming.processes import LOAD_CORE, SERVER_CORE, first_line, running

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv-bench"
PEERS = ("fastapi", "uvicorn[standard]", "openai")
START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class System:
    """A running server. `kind` and `address` are what load.py takes; `environment` is its credential."""

    pid: int
    kind: str
    address: str
    environment: dict[str, str] = field(default_factory=dict)


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
    VENV.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=VENV) as data_dir:
        where = ("--data-dir", data_dir)
        server = (sys.executable, "-m", "parley_server")
        environment = {"PARLEY_MODEL__BASE_URL": upstream, "PARLEY_MODEL__NAME": "fake", "PARLEY_LOG__LEVEL": log_level}
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
        with running(SERVER_CORE, serve, environment, silent=log_level != "error") as process:
            address = _published_address(Path(data_dir) / "server.lock", process)
            yield System(process.pid, "grpc", address, {"PARLEY_API_KEY": key})


@contextmanager
def bare_grpc(_upstream: str) -> Iterator[System]:
    """Messages of the same kind over grpc.aio, and nothing else."""
    with running(SERVER_CORE, [sys.executable, "-m", "streaming.bare_grpc_server"]) as process:
        yield System(process.pid, "grpc", f"127.0.0.1:{first_line(process)}")


@contextmanager
def fastapi(upstream: str) -> Iterator[System]:
    """FastAPI and the openai SDK, in a virtual environment of their own."""
    port = _free_port()
    uvicorn = [
        str(VENV / "bin" / "uvicorn"),
        "streaming.fastapi_server:app",
        "--port",
        str(port),
        "--log-level",
        "error",
    ]
    with running(SERVER_CORE, uvicorn, {"UPSTREAM": upstream}) as process:
        _wait_for_port(port, process)
        yield System(process.pid, "sse", f"127.0.0.1:{port}/chat")


SYSTEMS: dict[str, Start] = {"Parley": parley, "bare grpc.aio": bare_grpc, "FastAPI + openai SDK": fastapi}


def ensure_peers() -> None:
    """Make the peers' virtual environment where it is missing; the versions are the newest of that day."""
    if (VENV / "bin" / "uvicorn").exists():
        return
    print(f"making {VENV.name} with {', '.join(PEERS)}", file=sys.stderr)
    uv = shutil.which("uv")
    if uv is None:
        venv.create(VENV, with_pip=True)
        subprocess.run([VENV / "bin" / "python", "-m", "pip", "install", "--quiet", *PEERS], check=True)
    else:
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, VENV], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", VENV / "bin" / "python", *PEERS], check=True)


def peer_versions() -> dict[str, str]:
    """Return the versions of what is in the peers' environment."""
    program = "import json, sys, importlib.metadata as m; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    names = [name.partition("[")[0] for name in PEERS]
    listed = subprocess.run([VENV / "bin" / "python", "-c", program, *names], check=True, capture_output=True)
    versions: dict[str, str] = json.loads(listed.stdout)
    return versions


def _published_address(lock: Path, process: subprocess.Popen[str]) -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        text = lock.read_text(encoding="utf-8") if lock.exists() else ""
        if text and (address := json.loads(text).get("address")):
            return str(address)
        time.sleep(0.02)
    raise RuntimeError("the server did not start")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for_port(port: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("the server did not start")
