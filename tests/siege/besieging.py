"""One attack on one server, a neighbour beside it: what it cost, and what was left."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from dataclasses import dataclass
from pathlib import Path

from siege.attacks import ATTACKS
from siege.neighbour import Served, neighbour
from siege.vitals import Peak, Vitals, back_to, watched

_TESTS = Path(__file__).parents[1]
_ATTACK_TIMEOUT_S = 110.0
# The neighbour's connections, and threads of the core and of the store that come and go.
_SPARE = 8
# By then the server's own limits have ended what a peer left behind, in the worst case two pings that meet no answer.
_AFTERWARDS_S = 15.0
_FROZEN_S = 100.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attack came to."""

    name: str
    size: int
    tally: dict[str, int]
    served: Served
    before: Vitals
    peak: Peak
    after: Vitals

    @property
    def growth_mib(self) -> int:
        """What the server's memory grew by while the attack lasted."""
        return (self.peak.rss_kib - self.before.rss_kib) >> 10

    @property
    def row(self) -> str:
        """The figures as a row of a Markdown table."""
        cells = [
            self.name,
            f"{self.size:,}",
            f"{self.before.rss_kib >> 10} / {self.peak.rss_kib >> 10} / {self.after.rss_kib >> 10}",
            f"{self.before.fds} / {self.peak.fds} / {self.after.fds}",
            f"{self.before.threads} / {self.peak.threads} / {self.after.threads}",
            f"{self.after.cpu_s - self.before.cpu_s:.1f}",
            f"{len(self.served.calls_s) + len(self.served.new_s):,}",
            str(self.served),
            ", ".join(f"{count:,} {what}" for what, count in sorted(self.tally.items())),
        ]
        return f"| {' | '.join(cells)} |"


HEADINGS = ["attack", "size", "memory MiB", "descriptors", "threads", "CPU s", "neighbour's calls"]
HEADINGS += ["p50 / p99 / most on a new connection, ms", "what came of it"]


async def besiege(address: str, pid: int, run_id: str, name: str, *, size: int, hold_s: float) -> Outcome:
    """Attack, and wait until the server has let go of everything.

    Raises AssertionError when it does not, or when the attack does not end.
    """
    attack = ATTACKS[name]
    before = Vitals.of(pid)
    async with watched(pid) as peak, neighbour(address) as served:
        process = await create_subprocess_exec(
            sys.executable, "-m", "siege.attacker", name, address, str(size), str(hold_s), run_id,
            # Stopped, it would be continued and hung up on once whoever started us goes.
            cwd=_TESTS, stdout=PIPE, start_new_session=True,
        )  # fmt: skip
        try:
            tally = await _tally(process)
            if attack.freezes and size == attack.size:
                await back_to(pid, before, spare=_SPARE, timeout_s=_FROZEN_S)
                assert process.returncode is None, "the attacker ended before the server let go of him"
        finally:
            await _end(process)
    after = await back_to(pid, before, spare=_SPARE, timeout_s=_AFTERWARDS_S)
    return Outcome(name, size, tally, served, before, peak, after)


async def _tally(process: Process) -> dict[str, int]:
    assert process.stdout is not None
    async with asyncio.timeout(_ATTACK_TIMEOUT_S):
        line = await process.stdout.readline()
    assert line, "the attacker ended without a word"
    return {str(what): int(count) for what, count in json.loads(line).items()}


async def _end(process: Process) -> None:
    """End an attacker who may be stopped."""
    if process.returncode is None:
        process.send_signal(signal.SIGKILL)
    await process.wait()
