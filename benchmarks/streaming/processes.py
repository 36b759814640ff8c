"""Processes pinned to a core, and what they use, from /proc."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

SERVER_CORE, LOAD_CORE = 1, 0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_END_S = 10.0
# Where the programs of the benchmarks are found by name.
PROGRAMS = Path(__file__).parents[1]


@contextmanager
def running(
    core: int,
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    folder: Path = PROGRAMS,
    log: Path | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """Run a program on one core for a block, with these variables and none of Parley's or OpenAI's own.

    `folder` is where it runs; with `log` all that it says goes there and first_line has nothing to read. At the end it
    is ended with all the processes it has started.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "PARLEY_"))}
    os.sched_setaffinity(0, {core})  # inherited; this process only waits, and does so on the load's core
    with ExitStack() as stack:
        said = stack.enter_context(log.open("a", encoding="utf-8")) if log else None
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=said or subprocess.PIPE,
            stderr=said,
            text=True,
            env={**inherited, **(environment or {})},
            cwd=folder,
        )
    os.sched_setaffinity(0, {LOAD_CORE})
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    _, *children = _family(process.pid)
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def tell(process: subprocess.Popen[str], line: str) -> None:
    """Write a line to a process."""
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def first_line(process: subprocess.Popen[str]) -> str:
    """Return the first line that a process writes. Raises RuntimeError when it ends instead."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        raise RuntimeError(f"{process.args!r} ended with {process.wait()} and said nothing")
    return line


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process and its children, all threads, user and system."""
    stats = [_read(Path(f"/proc/{each}/stat")).rpartition(")")[2].split() for each in _family(pid)]
    return sum(int(words[11]) + int(words[12]) for words in stats if words) / _TICKS_PER_S


def rss_kib(pid: int) -> int:
    """Return the resident memory of a process and its children in KiB."""
    lines = [line for each in _family(pid) for line in _read(Path(f"/proc/{each}/status")).splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def _family(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in _read(task).split():
            yield from _family(int(child))


def _read(path: Path) -> str:
    """Read a file of a process or a thread, which may just have ended: then there is nothing in it."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return path.read_text(encoding="ascii")
    return ""
