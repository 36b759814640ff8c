"""Processes pinned to a core, and what they use, from /proc."""

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

SERVER_CORE, LOAD_CORE = 1, 0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_END_S = 10.0


@contextmanager
def running(
    core: int,
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    silent: bool = False,
) -> Iterator[subprocess.Popen[str]]:
    """Run a program on one core for a block, with these variables and none of Parley's or OpenAI's own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "PARLEY_"))}
    os.sched_setaffinity(0, {core})  # inherited; this process only waits, and does so on the load's core
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if silent else None,
        text=True,
        env={**inherited, **(environment or {})},
        cwd=Path(__file__).parents[1],
    )
    os.sched_setaffinity(0, {LOAD_CORE})
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def first_line(process: subprocess.Popen[str]) -> str:
    """Return the first line that a process writes. Raises RuntimeError when it ends instead."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        raise RuntimeError(f"{process.args!r} ended with {process.wait()} and said nothing")
    return line


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process, all threads, user and system."""
    words = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / _TICKS_PER_S


def rss_kib(pid: int) -> int:
    """Return the resident memory of a process in KiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
