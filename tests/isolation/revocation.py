"""A key that was lent is revoked: from the answer on it opens nothing, and neither does any token that rests on it.

What was begun with it goes on, but whoever follows it with it hears no more, and it changes nothing any more.
"""

import asyncio
from random import Random

import grpc
from catalogue.door import Caller
from isolation.asker import Asker
from isolation.cast import Cast, Speaker, lent_anew
from isolation.player import Player
from isolation.prologue import PATIENCE_S, follow, said, step_of
from isolation.stage import RECHECK_S, Stage
from isolation.wire import Answer
from parley.v1 import admin_service_pb2 as admin
from parley.v1 import agent_service_pb2 as agents
from parley.v1 import api_key_service_pb2 as keys
from parley.v1 import run_pb2


async def revoke_a_key(stage: Stage, player: Player, cast: Cast, random: Random) -> None:
    """Have a key and a token of it used just before, when the server remembers them, and right after."""
    lent = cast.lent[random.choice(list(cast.lent))]
    delegate = stage.delegates.resting_on(lent.key_id, random)
    users = [lent] if delegate is None else [lent, delegate]
    for speaker in users:
        await _use(player, speaker, random)
    owner = next(each for each in cast.speakers.values() if each.owner == lent.owner)
    held = [await _Held.begun(stage, player, each, Random(random.random())) for each in users if each.can_run]
    await _revoke(stage, lent)
    try:
        for speaker in users:
            await _use(player, speaker, random)
        await asyncio.sleep(RECHECK_S)
        for each in held:
            await each.goes_on(owner)
    finally:
        for each in held:
            each.let_go()
    cast.lent[lent.role] = await lent_anew(stage.channel, lent)
    stage.world.reserved.add(cast.lent[lent.role].key_id)


async def _revoke(stage: Stage, lent: Speaker) -> None:
    stage.delegates.ending.add(lent.key_id)
    stage.delegates.add(lent)
    await Caller(stage.channel).ask(keys.RevokeApiKeyRequest(key_id=lent.key_id), keys.RevokeApiKeyResponse)
    stage.delegates.ended.add(lent.key_id)


async def _use(player: Player, speaker: Speaker, random: Random) -> None:
    await player.play_step(step_of(speaker, admin.GetServerInfoRequest(), Asker(random, player.world, speaker)))


class _Held:
    """A run that a tool host holds up, followed by him who began it."""

    def __init__(self, stage: Stage, player: Player, asker: Asker) -> None:
        self._stage = stage
        self._player = player
        self._asker = asker
        self._words = asker.words()
        self._answer = Answer()

    @classmethod
    async def begun(cls, stage: Stage, player: Player, speaker: Speaker, random: Random) -> "_Held":
        """Begin one."""
        held = cls(stage, player, Asker(random, stage.world, speaker))
        spec = run_pb2.RunSpec(input=[said(f"hold {held._words}")])
        held._answer = await follow(player, speaker, held._asker, spec, "tool_call_started")
        return held

    def let_go(self) -> None:
        """Have the host answer."""
        self._stage.holds.let_go(self._words)

    async def goes_on(self, owner: Speaker) -> None:
        """Add what would change something, let the run go on, and judge how its follower's stream ends."""
        if self._answer.code is not None:
            # It was over before: a chain that is too long gets no host.
            self.let_go()
            return
        added = self._asker.words()
        self._stage.hosts.denied.add(added)
        event = agents.RunAgentResponse.FromString(self._answer.messages[0]).event
        steer = agents.SteerRunRequest(run_id=event.run_id, input=[said(f"protest {added}")])
        await self._player.play_step(step_of(owner, steer, Asker(self._asker.random, self._stage.world, owner)))
        self.let_go()
        if await self._end() is grpc.StatusCode.OK:
            role = self._asker.speaker.role
            self._stage.world.leak(f"AgentService.RunAgent by {role}", "is told of a run by a key that is revoked")

    async def _end(self) -> grpc.StatusCode:
        async with asyncio.timeout(PATIENCE_S):
            while (code := self._answer.code) is None:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.01)
        return code
