"""The attacked server's vital signs, read from outside: Linux's /proc."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Vitals:
    """Resident memory in KiB, open file descriptors, threads, and CPU seconds so far."""

    rss_kib: int
    fds: int
    threads: int
    cpu_s: float

    @classmethod
    def of(cls, pid: int) -> "Vitals":
        """Read those of a process."""
        process = Path("/proc", str(pid))
        status = dict(
            line.split(":", 1) for line in (process / "status").read_text(encoding="ascii").splitlines() if ":" in line
        )
        ticks = (process / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[11:13]
        return cls(
            rss_kib=int(status["VmRSS"].split()[0]),
            fds=len(os.listdir(process / "fd")),
            threads=int(status["Threads"]),
            cpu_s=sum(map(int, ticks)) / _TICKS_PER_S,
        )


@dataclass
class Peak:
    """The most that was seen of each while something went on."""

    rss_kib: int = 0
    fds: int = 0
    threads: int = 0

    def note(self, vitals: Vitals) -> None:
        self.rss_kib = max(self.rss_kib, vitals.rss_kib)
        self.fds = max(self.fds, vitals.fds)
        self.threads = max(self.threads, vitals.threads)


@asynccontextmanager
async def watched(pid: int, every_s: float = 0.05) -> AsyncIterator[Peak]:
    """Look at a process again and again for a block."""
    peak = Peak()

    async def look() -> None:
        while True:
            peak.note(Vitals.of(pid))
            await asyncio.sleep(every_s)

    looking = asyncio.create_task(look())
    try:
        yield peak
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def back_to(pid: int, base: Vitals, *, spare: int, timeout_s: float) -> Vitals:
    """Wait until a process has no more descriptors and threads than before, or `spare` more; return its vitals then.

    Raises AssertionError when that takes too long.
    """
    end = time.monotonic() + timeout_s
    while True:
        now = Vitals.of(pid)
        if now.fds <= base.fds + spare and now.threads <= base.threads + spare:
            return now
        assert time.monotonic() < end, f"left behind: {now}, before: {base}"
        await asyncio.sleep(0.05)
