"""The stateful machine: hypothesis chooses who does what next, out of every rpc that the contract declares."""

import asyncio
import traceback
from collections.abc import Coroutine
from random import Random
from typing import TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from isolation.cases import CASES
from isolation.cast import Cast
from isolation.methods import name_of, user_methods
from isolation.player import Player
from isolation.prologue import give_everybody_something, look_again
from isolation.reckoning import reckon
from isolation.revocation import revoke_a_key
from isolation.stage import Stage
from isolation.wire import Wire

T = TypeVar("T")
STEP_TIMEOUT_S = 120.0
_SEEDS = st.integers(0, 2**32 - 1)
# One without a case is what a test fails for, and nothing here.
_METHODS = {name_of(method): method for method in user_methods() if name_of(method) in CASES}
# One rule for all of them: of many rules hypothesis leaves most out of an example, and a restart takes half a second.
DEEDS = [
    *sorted((name for name in _METHODS for _ in range(2 * CASES[name].weight)), key=lambda name: -CASES[name].weight),
    *("hang up", "hang up", "kill", "drain", "revoke", "revoke"),
]


class FoundError(AssertionError):
    """The server has shown somebody what is not his, or was not well; the message says what."""


class IsolationMachine(RuleBasedStateMachine):
    """One example: a cast of its own on a stage that goes on. Rules for the rpcs are added by `machine_on`."""

    stage: Stage
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        super().__init__()
        self._steps = 0
        self._wire = Wire()
        self._player = Player(self.stage, self._wire)
        self._cast = Cast()

    def on_loop(self, work: Coroutine[object, object, T]) -> T:
        """Do work where the channel lives, and wait for it."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self.loop).result(STEP_TIMEOUT_S)
        except Exception as error:
            # Hypothesis plays again what failed, and tells less of an error that does not come again.
            self.stage.world.fault("".join(traceback.format_exception(error))[-2000:])
            raise

    def random(self, seed: int) -> Random:
        """Return the randomness of a step: hypothesis likes small numbers, and no step is to be like the one before."""
        self._steps += 1
        return Random(f"{seed} {self._steps} {self.stage.casts}")

    @initialize(seed=_SEEDS)
    def begin(self, seed: int) -> None:
        """Bring on a new cast, and give each of it something to have."""
        self.on_loop(self._begin(self.random(seed)))
        self.look()

    async def _begin(self, random: Random) -> None:
        self._cast = await self.stage.cast(random)
        await give_everybody_something(self._player, self._cast, random)

    @rule(seed=_SEEDS)
    def step(self, seed: int) -> None:
        """Let somebody call an rpc, or something happen to the server or to all who follow a stream."""
        random = self.random(seed)
        deed = random.choice(DEEDS)
        match deed:
            case "hang up":
                self.on_loop(self._wire.hang_up())
            case "kill" | "drain":
                self.on_loop(self._restart(random, kill=deed == "kill"))
            case "revoke":
                self.on_loop(revoke_a_key(self.stage, self._player, self._cast, random))
            case _:
                speaker = self.stage.who_calls(self._cast, random)
                self.on_loop(self._player.play(_METHODS[deed], speaker, random))
        self.look()

    async def _restart(self, random: Random, *, kill: bool) -> None:
        await self._wire.hang_up()
        await self.stage.restart(kill=kill)
        await look_again(self._player, self._cast, random)

    def look(self) -> None:
        """Raise FoundError for what has been found."""
        self.stage.look_around()
        raise_found(self.stage)

    def teardown(self) -> None:
        """Hold what everybody has at the end against what he should have."""
        self.on_loop(self._wire.hang_up())
        if self._cast.speakers and not self.stage.world.leaks:
            self.on_loop(reckon(self.stage, self._cast))
            self.look()


def run_machine(stage: Stage, loop: asyncio.AbstractEventLoop, *, examples: int, steps: int, is_sample: bool) -> None:
    """Play examples until one finds something; called in a thread of its own. A sample is the same every time.

    Raises:
        FoundError: something was found. It is not shrunk: what a server does next depends on what it did before.
    """
    try:
        run_state_machine_as_test(
            type("Machine", (IsolationMachine,), {"stage": stage, "loop": loop}),
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
                deadline=None,
                database=None,
                derandomize=is_sample,
                report_multiple_bugs=False,
            ),
        )
    except Exception as error:
        # What was found is in the world; hypothesis may complain besides that the same steps do not find it twice.
        raise_found(stage, error)
        raise


def raise_found(stage: Stage, error: Exception | None = None) -> None:
    """Raise FoundError, from an error where there is one, for what has been found on a stage so far."""
    found = [*map(str, stage.world.leaks), *stage.world.faults]
    if found:
        raise FoundError("\n".join(found[:5])) from error
