"""The server that is killed again and again, on one data directory and one address."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from chaos.power_cut import PowerCut
from lasting_port import lasting_port
from nursery import Nursery, Seedling

START_TIMEOUT_S = 60.0
_PAUSE_S = 0.005
_TESTS = Path(__file__).parents[1]


class StartFailedError(Exception):
    """The server did not come back; the message is the end of its log."""


@dataclass
class ServerUnderTest:
    """Open it with `async with`; then `start`, `kill`, `start` ... `start_s` are the seconds every start took.

    With a `power_cut`, what the dead server had not synced is gone before the next start: `lost_writes` so far.
    """

    folder: Path
    environment: Mapping[str, str]
    twin: str = ""
    power_cut: PowerCut | None = None
    start_s: list[float] = field(default_factory=list)
    pid: int = 0
    lost_writes: int = 0
    _ended: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.data_dir = self.folder / "data"
        self.address = f"127.0.0.1:{lasting_port()}"
        self._log = self.folder / "server.log"

    async def __aenter__(self) -> Self:
        cut = self.power_cut.environment() if self.power_cut else {}
        self._environment = _clean_environment() | dict(self.environment) | cut
        # One of its own: the shim of the power cuts is loaded into it.
        self._nursery = Nursery(self._environment, ["chaos.effects", "chaos.twins"])
        self._ended.set()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        await self.ended()
        self._nursery.close()

    @property
    def is_running(self) -> bool:
        """Tell whether there is a process."""
        return not self._ended.is_set()

    @property
    def log(self) -> str:
        """All that the servers have written."""
        return self._log.read_text(encoding="utf-8") if self._log.exists() else ""

    async def begin(self) -> None:
        """Begin a server, without waiting until it serves."""
        if self.power_cut:
            self.lost_writes += self.power_cut.lose_unsynced()
        self._ended.clear()
        command = [sys.executable, "-m", "chaos.server", "--listen", self.address, "--data-dir", str(self.data_dir)]
        command += ["--twin", self.twin]
        begin = partial(self._nursery.begin, command, self._environment, _TESTS, self._log, self._log)
        seedling = await asyncio.to_thread(begin)
        self.pid = seedling.pid
        self._watching = asyncio.create_task(self._watch(seedling))

    async def start(self) -> None:
        """Begin a server and wait until it serves. Raises StartFailedError."""
        begun = time.monotonic()
        await self.begin()
        while not self._serves():
            if not self.is_running or time.monotonic() > begun + START_TIMEOUT_S:
                raise StartFailedError(self.log[-4000:])
            await asyncio.sleep(_PAUSE_S)
        self.start_s.append(time.monotonic() - begun)

    def kill(self) -> None:
        """End it as a crash does; nothing when it is dead already."""
        if self.is_running:
            # A trap may have been quicker.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """End it as an operator does, with all its files closed."""
        os.kill(self.pid, signal.SIGTERM)
        await self.ended()

    async def ended(self) -> None:
        """Wait until it is dead."""
        await self._ended.wait()

    async def _watch(self, seedling: Seedling) -> None:
        await asyncio.to_thread(seedling.wait)
        self._ended.set()

    def _serves(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            content = json.loads((self.data_dir / "server.lock").read_text(encoding="utf-8"))
            return bool(content["pid"] == self.pid and content["address"])
        return False


def _clean_environment() -> dict[str, str]:
    """Drop what would connect the server to somebody's real model or data."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "PARLEY_"))}
