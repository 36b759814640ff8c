"""A server with many watchers: what one takes of its memory, and what it is sent."""

import sys
from dataclasses import dataclass

from streaming.processes import LOAD_CORE, cpu_s, first_line, rss_kib, running, tell
from streaming.script import Script
from streaming.systems import System


@dataclass(frozen=True)
class FanOut:
    """KiB of the server per watcher; events delivered in a second, and the server's CPU in us for each."""

    kib: float
    events_per_s: float
    cpu_us: float


def held_kib(system: System, kind: str, watchers: int) -> float:
    """Return what one more watcher of silent runs takes, once the server has warmed up."""
    fan_out(system, kind, Script(5), 20)
    return _measured(system, kind, Script(1, hold_ms=600_000), watchers, to_the_end=False).kib


def fan_out(system: System, kind: str, script: Script, watchers: int) -> FanOut:
    """Watch runs from their beginning to their end."""
    return _measured(system, kind, script, watchers, to_the_end=True)


def _measured(system: System, kind: str, script: Script, watchers: int, *, to_the_end: bool) -> FanOut:
    words = (system.address, kind, script.model, str(watchers))
    with running(LOAD_CORE, [sys.executable, "-m", "durability.watchers", *words], system.environment) as clients:
        first_line(clients)
        before_kib, before_s = rss_kib(system.pid), cpu_s(system.pid)
        tell(clients, "go on")
        first_line(clients)
        kib = (rss_kib(system.pid) - before_kib) / watchers
        if not to_the_end:
            return FanOut(kib, 0, 0)
        tell(clients, "go on")
        events, seconds = first_line(clients).split()
        cpu_us = (cpu_s(system.pid) - before_s) / int(events) * 1e6
        return FanOut(kib, int(events) / float(seconds), cpu_us)
