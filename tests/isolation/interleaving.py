"""The machine's steps all at once: many callers on a server whose tasks are held up, and calls that are given up."""

import asyncio
from random import Random

from isolation.cast import Cast
from isolation.machine import DEEDS
from isolation.methods import name_of, user_methods
from isolation.player import Player
from isolation.prologue import give_everybody_something
from isolation.reckoning import reckon
from isolation.revocation import revoke_a_key
from isolation.stage import Stage
from isolation.wire import Wire

CALLERS = 12
_GIVEN_UP = 0.3
# Of the rounds of this loop; in as many a call has long been answered.
_MOST_ROUNDS = 200
_METHODS = {name_of(method): method for method in user_methods()}
_REVOKE = "revoke"
_DEEDS = [name for name in DEEDS if name in _METHODS or name == _REVOKE]


async def play_interleaved(stage: Stage, seed: int, *, steps: int) -> None:
    """Play so many steps, some at a time; what was found is in the stage's world."""
    random = Random(seed)
    wire = Wire()
    player = Player(stage, wire)
    cast = await stage.cast(random)
    await give_everybody_something(player, cast, random)
    share = steps // CALLERS
    try:
        await asyncio.gather(*(_call(stage, player, cast, Random(f"{seed} {n}"), share) for n in range(CALLERS)))
    finally:
        await wire.hang_up()
    stage.look_around()
    await reckon(stage, cast)
    stage.look_around()


async def _call(stage: Stage, player: Player, cast: Cast, random: Random, steps: int) -> None:
    """Be one of those who call: one step after the other, some of which are given up at any of their awaits."""
    for _ in range(steps):
        call = asyncio.create_task(_deed(stage, player, cast, random))
        if random.random() < _GIVEN_UP:
            for _ in range(random.randint(0, _MOST_ROUNDS)):
                await asyncio.sleep(0)
            call.cancel()
        await asyncio.wait([call])
        if not call.cancelled() and (error := call.exception()) is not None:
            raise error


async def _deed(stage: Stage, player: Player, cast: Cast, random: Random) -> None:
    deed = random.choice(_DEEDS)
    if deed == _REVOKE:
        await revoke_a_key(stage, player, cast, random)
    else:
        await player.play(_METHODS[deed], stage.who_calls(cast, random), random)
