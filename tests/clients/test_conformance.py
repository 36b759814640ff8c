"""One scenario from every kind of client: clients/conformance."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.node_tools import BUF, NODE_MODULES, ROOT, require_node
from server_process import ServerProcess, running_server

CONFORMANCE = ROOT / "clients" / "conformance"
RUNNERS = CONFORMANCE / "runners"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running_server(tmp_path_factory.mktemp("server")) as running:
        yield running


def play(server: ServerProcess, *runner: str | Path) -> None:
    """Play the scenario through a runner, which gets the server's address as its last argument."""
    command: list[str | Path] = [sys.executable, CONFORMANCE / "run.py", server.address, *runner]
    played = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert played.returncode == 0, played.stdout + played.stderr


def test_the_asyncio_stubs(server: ServerProcess) -> None:
    play(server, sys.executable, RUNNERS / "python_aio.py")


def test_the_blocking_client(server: ServerProcess) -> None:
    play(server, sys.executable, RUNNERS / "python_sync.py")


def test_buf_curl(server: ServerProcess) -> None:
    require_node("@bufbuild/buf")
    play(server, sys.executable, RUNNERS / "buf_curl.py", BUF)


def test_grpc_js(server: ServerProcess) -> None:
    require_node("@grpc/grpc-js", "@grpc/proto-loader")
    play(server, "node", RUNNERS / "grpc_js.mjs", ROOT / "protos")


def test_connect_es(server: ServerProcess, tmp_path: Path) -> None:
    require_node("@bufbuild/buf", "@bufbuild/protobuf", "@bufbuild/protoc-gen-es", "@connectrpc/connect-node")
    generate: list[str | Path] = [BUF, "generate", "--template", CONFORMANCE / "buf.gen.yaml", "--output", tmp_path]
    subprocess.run(generate, cwd=ROOT, check=True, timeout=100)
    # Node looks for a module's imports beside it and further up.
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    play(server, "node", RUNNERS / "connect_es.mjs", tmp_path)


def test_what_is_not_as_expected_is_found(server: ServerProcess) -> None:
    lying = 'import sys\nfor _ in sys.stdin: print(\'{"code": "OK", "messages": [{}]}\', flush=True)'
    command: list[str | Path] = [sys.executable, CONFORMANCE / "run.py", server.address, sys.executable, "-c", lying]
    played = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (played.returncode, played.stdout.partition("\n")[0]) == (1, "FAIL the agents are listed")
