"""Loads of streams, put on a system by a process of clients."""

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from subprocess import Popen

from streaming.load import READY
from streaming.measurements import Seen
from streaming.processes import LOAD_CORE, cpu_s, first_line, rss_kib, running, tell
from streaming.script import Script
from streaming.systems import System

_CLIENTS = {
    "grpc": "streaming.grpc_clients",
    "watch": "streaming.grpc_clients",
    "sse": "streaming.http_clients",
    "langgraph": "streaming.http_clients",
    "a2a": "streaming.a2a_clients",
}
# What a load may take at most; the slowest system needs a third of it under the largest.
_LIMIT_S = 120.0
_HOLD_MS = 600_000


@dataclass(frozen=True)
class Load:
    """So many streams at a time, in so many turns, their starts within so many seconds, after so many messages."""

    name: str
    script: Script
    streams: int
    turns: int = 1
    spread_s: float = 0.0
    history: int = 0


@dataclass(frozen=True)
class Row:
    """One system under one load: what was seen, and the server's CPU in us a chunk."""

    seen: Seen
    cpu_us: float


class LoadError(Exception):
    """A system did not do what a load asks for, or took too long over it."""


def measure(system: System, load: Load) -> Row:
    """Run a load on a system. Raises LoadError."""
    words = (load.script.model, load.streams, load.turns, load.spread_s, load.history)
    with _clients(system, system.kind, *words) as clients, _within(_LIMIT_S, clients):
        try:
            assert first_line(clients) == READY
            before = cpu_s(system.pid)
            tell(clients, "go on")
            seen = Seen.from_json(first_line(clients))
        except (RuntimeError, BrokenPipeError) as error:
            why = f"not done in {_LIMIT_S:.0f} s" if clients.wait() == -signal.SIGKILL else "an error"
            raise LoadError(f"{load.name}: {why}") from error
    expected = load.script.chunks * load.streams * load.turns
    if seen.chunks != expected:
        raise LoadError(f"{load.name}: {seen.chunks} chunks of {expected} came")
    return Row(seen, (cpu_s(system.pid) - before) / seen.chunks * 1e6)


def held_kib(system: System, kind: str, streams: int) -> float:
    """Return what one more open stream takes of the server's memory, in KiB, once the server has warmed up."""
    measure(system, Load("warm-up", Script(5), 20, turns=2))
    before = rss_kib(system.pid)
    with _clients(system, kind, Script(1, hold_ms=_HOLD_MS).model, streams, "hold") as clients:
        first_line(clients)
        return (rss_kib(system.pid) - before) / streams


def _clients(system: System, kind: str, *words: object) -> AbstractContextManager[Popen[str]]:
    program = [system.python, "-m", _CLIENTS[kind], kind, system.address, *map(str, words)]
    return running(LOAD_CORE, program, system.environment)


@contextmanager
def _within(seconds: float, process: Popen[str]) -> Iterator[None]:
    """End a process that takes longer."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
