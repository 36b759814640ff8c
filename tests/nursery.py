"""Begins programs fast: a process that has imported what a server imports, and forks one program after the other.

Python needs a second of a processor for a server's modules, and the tests begin hundreds of processes that need them.
Here that is done once. A program runs as it would by itself: with its own arguments, environment, directory, output
and end. Where a fork could not do that (see `fork_does_it`) it is a process from the start.
"""

import atexit
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from secret_scan import note_environment

# What the server and its commands import sooner or later.
_PRELOADED = (
    "alembic.command",
    "openai.resources.chat.completions",
    "parley_server.app",
    "parley_server.cli",
    "parley_server.llm.upstream",
    "parley_server.storage.sql.postgres",
    "uvloop",
)
PATIENCE_S = 60.0
# What an interpreter, its libraries or gRPC's core read when they are loaded, which is too early for a fork.
_READ_EARLY = ("PYTHON", "LD_", "GRPC_", "MALLOC_")


class Seedling:
    """A process that the nursery has begun, with what `subprocess.Popen` calls its methods."""

    def __init__(self, nursery: "Nursery", pid: int) -> None:
        self.pid = pid
        self._nursery = nursery
        self._ended = os.pidfd_open(pid)
        self._code: int | None = None
        self._reaping = threading.Lock()

    def poll(self) -> int | None:
        """Return its exit code once it has ended."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; returns its exit code, or minus its signal. Raises subprocess.TimeoutExpired."""
        with self._reaping:
            if self._code is None:
                ended = select.poll()
                ended.register(self._ended, select.POLLIN)
                if not ended.poll(None if timeout is None else timeout * 1000):
                    raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
                self._code = self._nursery.reap(self.pid)
                os.close(self._ended)
            return self._code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


class Nursery:
    """The process that forks; it ends when it is closed, or with this one. It imports `modules`, too."""

    def __init__(self, environment: Mapping[str, str] | None = None, modules: Sequence[str] = ()) -> None:
        self._asking = threading.Lock()
        command = [sys.executable, __file__, *modules]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        atexit.register(self.close)

    def begin(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, output: Path, errors: Path
    ) -> Seedling:
        """Begin `PYTHON -m MODULE ...` or `PYTHON SCRIPT ...`; what it says is added to the files."""
        files = {"folder": str(folder), "output": str(output), "errors": str(errors)}
        return Seedling(self, self._ask({"command": command[1:], "environment": dict(environment), **files}))

    def reap(self, pid: int) -> int:
        """Return the exit code of one that has ended."""
        return self._ask({"reap": pid})

    def close(self) -> None:
        """End it; what it has begun goes on, and nobody learns its exit code."""
        atexit.unregister(self.close)
        self._process.communicate()

    def _ask(self, order: Mapping[str, object]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._asking:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, "the nursery has ended; what it said of that is in the output of the tests"
        return int(answer)


@cache
def the_nursery() -> Nursery:
    """Return the one of this process."""
    return Nursery()


def fork_does_it(command: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Tell whether a fork does what the command would: it is our Python's, and finds what Python is started with."""

    def early(variables: Mapping[str, str]) -> dict[str, str]:
        return {name: value for name, value in variables.items() if name.startswith(_READ_EARLY)}

    if sys.platform != "linux" or early(environment) != early(os.environ):
        return False
    return command[0] == sys.executable and (command[1] == "-m" or command[1].endswith(".py"))


def begun(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, output: Path, errors: Path
) -> "subprocess.Popen[bytes] | Seedling":
    """Begin a command, by a fork where that does it; what it says is added to the files."""
    note_environment(environment)
    if fork_does_it(command, environment):
        return the_nursery().begin(command, environment, folder, output, errors)
    with output.open("ab") as out, errors.open("ab") as err:
        return subprocess.Popen(command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=err)


def ran(
    command: Sequence[str], environment: Mapping[str, str] = os.environ, folder: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end; returns what it said and its exit code."""
    with tempfile.TemporaryDirectory() as said:
        output, errors = Path(said, "output"), Path(said, "errors")
        process = begun(command, environment, folder or Path.cwd(), output, errors)
        try:
            code = process.wait(PATIENCE_S)
        finally:
            process.send_signal(signal.SIGKILL)
        return subprocess.CompletedProcess(command, code, output.read_text("utf-8"), errors.read_text("utf-8"))


def _main() -> None:
    # Whoever interrupts the tests means pytest.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for name in (*_PRELOADED, *sys.argv[1:]):
        importlib.import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        if "reap" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["reap"], 0)[1])
        elif not (answer := os.fork()):
            _become(**order)
            return
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def _become(command: Sequence[str], environment: Mapping[str, str], folder: str, output: str, errors: str) -> None:
    """Be the program; its end is the end of this process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for descriptor, path, flags in ((0, os.devnull, os.O_RDONLY), (1, output, os.O_WRONLY), (2, errors, os.O_WRONLY)):
        opened = os.open(path, flags | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if command[0] == "-m":
        sys.argv[:] = command[1:]
        sys.path[0] = folder
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = command
        sys.path[0] = str(Path(command[0]).parent)
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    _main()
