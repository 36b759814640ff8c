"""The systems that Parley is measured beside, and how each is started: defaults, production mode where there is one.

Every start is given the upstream's address; what a server logs goes to a file beside the virtual environments.
"""

import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from secrets import token_hex
from subprocess import Popen

from streaming.environments import CACHE, Environment
from streaming.processes import PROGRAMS, SERVER_CORE, first_line, running
from streaming.systems import START_TIMEOUT_S, Start, System, bare_grpc, parley

FASTAPI = Environment("fastapi", ("fastapi", "uvicorn[standard]", "openai"))
PYDANTIC_AI = Environment("pydantic-ai", ("pydantic-ai-slim[openai]", "fastapi", "uvicorn[standard]", "openai"))
LITELLM = Environment("litellm", ("litellm[proxy]", "openai"))
LANGGRAPH = Environment("langgraph", ("langgraph-cli[inmem]", "langgraph-api", "langchain-openai", "openai"))
A2A = Environment("a2a", ("a2a-sdk[grpc]", "grpcio", "uvloop", "openai"))

# Runs that are worked on at once; the default is 10, which would measure the queue alone.
_LANGGRAPH_JOBS = 250


@dataclass(frozen=True)
class Candidate:
    """One of the systems: its title, how it is started and in which mode, and where it is installed if not here."""

    title: str
    start: Start
    mode: str
    environment: Environment | None = None


@contextmanager
def fastapi(upstream: str) -> Iterator[System]:
    """FastAPI and the openai SDK."""
    with _uvicorn(FASTAPI, "streaming.fastapi_server:app", upstream) as system:
        yield system


@contextmanager
def pydantic_ai(upstream: str) -> Iterator[System]:
    """A pydantic-ai agent behind FastAPI."""
    with _uvicorn(PYDANTIC_AI, "streaming.pydantic_ai_server:app", upstream) as system:
        yield system


@contextmanager
def litellm(upstream: str) -> Iterator[System]:
    """LiteLLM's proxy with a master key and without a database, one worker."""
    key, port = f"sk-{token_hex(24)}", _free_port()
    settings = {
        "LITELLM_MASTER_KEY": key,
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "PATH": _path(LITELLM),
    }
    models = [
        {"model_name": "*", "litellm_params": {"model": "openai/*", "api_base": upstream, "api_key": "benchmark"}}
    ]
    # Nobody else's access log is written either.
    quiet = {"version": 1, "disable_existing_loggers": False, "loggers": {"uvicorn.access": {"level": "ERROR"}}}
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        config, log_config = Path(folder) / "config.yaml", Path(folder) / "log.json"
        # JSON is YAML.
        config.write_text(json.dumps({"model_list": models, "litellm_settings": {"num_retries": 0}}))
        log_config.write_text(json.dumps(quiet))
        where = ("--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False")
        program = [LITELLM.program("litellm"), "--config", str(config), "--log_config", str(log_config), *where]
        with _serving(program, settings, port, "/health/liveliness", "litellm") as pid:
            yield System(pid, "sse", f"127.0.0.1:{port}/v1/chat/completions", {"HTTP_API_KEY": key})


@contextmanager
def langgraph(upstream: str) -> Iterator[System]:
    """LangGraph's development server, all in memory."""
    port = _free_port()
    settings = {
        "UPSTREAM": upstream,
        "LANGSMITH_TRACING": "false",
        "LANGGRAPH_NO_VERSION_CHECK": "1",
        "LANGGRAPH_CLI_NO_ANALYTICS": "1",
        "LOG_LEVEL": "ERROR",
        "PATH": _path(LANGGRAPH),
    }
    # It keeps files where it runs.
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        application = Path(__file__).with_name("langgraph_app.py")
        config = {"dependencies": ["."], "graphs": {"agent": f"{application}:graph"}}
        (Path(folder) / "langgraph.json").write_text(json.dumps(config))
        jobs = ("--n-jobs-per-worker", str(_LANGGRAPH_JOBS))
        program = [LANGGRAPH.program("langgraph"), "dev", "--no-browser", "--no-reload", "--port", str(port), *jobs]
        with _serving(program, settings, port, "/ok", "langgraph", Path(folder)) as pid:
            yield System(pid, "langgraph", f"127.0.0.1:{port}/runs/stream")


@contextmanager
def a2a(upstream: str) -> Iterator[System]:
    """An a2a-sdk server over gRPC."""
    with running(SERVER_CORE, [A2A.python, "-m", "streaming.a2a_server"], {"UPSTREAM": upstream}) as process:
        yield System(process.pid, "a2a", f"127.0.0.1:{first_line(process)}", python=A2A.python)


CANDIDATES = {
    "parley": Candidate(
        "Parley",
        parley,
        "as installed: API key, policy, validation, SQLite with synchronous=FULL, run log, conversation kept",
    ),
    "bare": Candidate(
        "bare grpc.aio", bare_grpc, "Parley's messages over the transport alone; no model, no user, no store"
    ),
    "fastapi": Candidate(
        "FastAPI + openai SDK", fastapi, "uvicorn, uvloop; authenticates nobody and keeps nothing", FASTAPI
    ),
    "litellm": Candidate(
        "LiteLLM proxy", litellm, "production mode, master key, no database, one worker, access log off", LITELLM
    ),
    "langgraph": Candidate(
        "LangGraph dev server",
        langgraph,
        f"the development server, state in memory, {_LANGGRAPH_JOBS} jobs per worker; its queue is polled",
        LANGGRAPH,
    ),
    "pydantic-ai": Candidate(
        "pydantic-ai + FastAPI",
        pydantic_ai,
        "an agent without tools, uvicorn, uvloop; authenticates nobody and keeps nothing",
        PYDANTIC_AI,
    ),
    "a2a": Candidate(
        "a2a-sdk gRPC", a2a, "DefaultRequestHandlerV2, InMemoryTaskStore, openai SDK in the executor, uvloop", A2A
    ),
}


def _free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _uvicorn(environment: Environment, application: str, upstream: str) -> Iterator[System]:
    port = _free_port()
    quiet = ("--log-level", "error", "--no-access-log")
    program = [environment.program("uvicorn"), application, "--port", str(port), *quiet]
    with _serving(program, {"UPSTREAM": upstream}, port, "/openapi.json", environment.name) as pid:
        yield System(pid, "sse", f"127.0.0.1:{port}/chat")


@contextmanager
def _serving(
    program: Sequence[str],
    settings: Mapping[str, str],
    port: int,
    health: str,
    name: str,
    folder: Path = PROGRAMS,
) -> Iterator[int]:
    """Run a server over HTTP, from when it is well on; raises RuntimeError when it never is."""
    log = CACHE / f"{name}.log"
    log.unlink(missing_ok=True)
    with running(SERVER_CORE, program, settings, folder=folder, log=log) as process:
        _wait(port, health, process, log)
        yield process.pid


def _wait(port: int, path: str, process: Popen[str], log: Path) -> None:
    deadline = time.monotonic() + 3 * START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        except (OSError, HTTPException):
            pass  # not yet
        finally:
            connection.close()
        time.sleep(0.2)
    raise RuntimeError(f"it did not start; see {log.parent.name}/{log.name}")


def _path(environment: Environment) -> str:
    return f"{Path(environment.python).parent}{os.pathsep}{os.environ['PATH']}"
