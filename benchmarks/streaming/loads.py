"""Loads of streams, put on a system by a process of clients."""

import sys
from dataclasses import dataclass

from streaming.measurements import Seen
from streaming.processes import LOAD_CORE, cpu_s, first_line, rss_kib, running
from streaming.script import Script
from streaming.systems import System

_PROGRAM = (sys.executable, "-m", "streaming.load")
_HOLD_MS = 600_000


@dataclass(frozen=True)
class Load:
    """So many streams at a time, in so many turns, their starts within so many seconds."""

    name: str
    script: Script
    streams: int
    turns: int = 1
    spread_s: float = 0.0


@dataclass(frozen=True)
class Row:
    """One system under one load: what was seen, and the server's CPU in us a chunk."""

    seen: Seen
    cpu_us: float


def measure(system: System, load: Load) -> Row:
    """Run a load on a system."""
    words = (load.script.model, str(load.streams), str(load.turns), str(load.spread_s))
    before = cpu_s(system.pid)
    with running(LOAD_CORE, [*_PROGRAM, system.kind, system.address, *words], system.environment) as clients:
        seen = Seen.from_json(first_line(clients))
    expected = load.script.chunks * load.streams * load.turns
    if seen.chunks != expected:
        raise RuntimeError(f"{load.name}: {seen.chunks} chunks of {expected} came")
    return Row(seen, (cpu_s(system.pid) - before) / seen.chunks * 1e6)


def held_kib(system: System, kind: str, streams: int) -> float:
    """Return what one more open stream takes of the server's memory, in KiB, once the server has warmed up."""
    measure(system, Load("warm-up", Script(5), 20, turns=2))
    before = rss_kib(system.pid)
    words = (kind, system.address, Script(1, hold_ms=_HOLD_MS).model, str(streams), "hold")
    with running(LOAD_CORE, [*_PROGRAM, *words], system.environment) as clients:
        first_line(clients)
        return (rss_kib(system.pid) - before) / streams
