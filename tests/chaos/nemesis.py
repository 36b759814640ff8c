"""Whoever kills the server: at any time, when a client has just seen something, inside a tool, while it starts."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from chaos.effects import EFFECTS, World
from chaos.history import History
from chaos.server_under_test import ServerUnderTest

# A client has seen it, and that very moment the server dies.
SIGHTS = (
    "run_accepted",
    "run_started",
    "text_delta",
    "message_completed",
    "tool_call_started",
    "tool_call_finished",
    "run_finished",
    "cancel_confirmed",
    "steer_confirmed",
    "steer_applied",
)
# A tool dies with its server: nothing has happened yet, or it has and nobody knows.
TRAPS = tuple(f"{name} {moment}" for name in EFFECTS for moment in ("before", "after"))
ANY_TIME, STARTING, FIRST_START = "any time", "starting", "first start"
POINTS = (*SIGHTS, *TRAPS, *([ANY_TIME] * 8), *([STARTING] * 2))

_PATIENCE_S = 1.0
_MAX_LIFE_S = 0.6
_FIRST_START_S = 1.0


@dataclass
class Nemesis:
    """Kills `server` and starts it again, `rage` by `rage`; hits are in `history.kills`."""

    server: ServerUnderTest
    world: World
    history: History
    rng: random.Random
    points: Sequence[str] = POINTS

    def __post_init__(self) -> None:
        self._awaited = ""

    def notice(self, sight: str) -> None:
        """Hear of what a client has just seen."""
        if sight == self._awaited:
            self._awaited = ""
            self.server.kill()

    async def kill_first_start(self) -> None:
        """Kill the first server there is while it makes its files."""
        await self.server.begin()
        await asyncio.sleep(self.rng.uniform(0, _FIRST_START_S))
        await self._kill(FIRST_START)

    async def rage(self, kills: int) -> None:
        """Kill so many times; a server is serving before and afterwards. Raises StartFailedError."""
        for _ in range(kills):
            point = self.rng.choice(self.points)
            await (self._kill_while_starting() if point == STARTING else self._kill_at(point))
            await self.server.start()

    async def _kill_at(self, point: str) -> None:
        self._awaited = point if point in SIGHTS else ""
        self.world.set_trap(point if point in TRAPS else "")
        patience_s = self.rng.uniform(0, _MAX_LIFE_S) if point == ANY_TIME else _PATIENCE_S
        try:
            await asyncio.wait_for(self.server.ended(), patience_s)
        except TimeoutError:
            point = ANY_TIME
        self._awaited = ""
        await self._kill(point)
        self.world.set_trap("")

    async def _kill_while_starting(self) -> None:
        """Kill the one that serves, and the next one before it does."""
        await self._kill(ANY_TIME)
        await self.server.begin()
        usual_s = max(self.server.start_s[-5:])
        await asyncio.sleep(self.rng.uniform(0, usual_s))
        await self._kill(STARTING)

    async def _kill(self, point: str) -> None:
        self.server.kill()
        await self.server.ended()
        self.history.kills.append((point, time.time_ns()))
