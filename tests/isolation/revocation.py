"""A key that was lent is revoked: from the answer on it opens nothing, and neither does any token that rests on it."""

from random import Random

from catalogue.door import Caller
from isolation.asker import Asker
from isolation.cast import Cast, Speaker, lent_anew
from isolation.player import Player
from isolation.prologue import step_of
from isolation.stage import Stage
from parley.v1 import admin_service_pb2 as admin
from parley.v1 import api_key_service_pb2 as keys


async def revoke_a_key(stage: Stage, player: Player, cast: Cast, random: Random) -> None:
    """Have a key and a token of it used just before, when the server remembers them, and right after."""
    role = random.choice(list(cast.lent))
    lent = cast.lent[role]
    delegate = stage.delegates.resting_on(lent.key_id, random)
    users = [lent] if delegate is None else [lent, delegate]
    for speaker in users:
        await _use(player, speaker, random)
    stage.delegates.ending.add(lent.key_id)
    await Caller(stage.channel).ask(keys.RevokeApiKeyRequest(key_id=lent.key_id), keys.RevokeApiKeyResponse)
    stage.delegates.ended.add(lent.key_id)
    for speaker in users:
        await _use(player, speaker, random)
    stage.delegates.add(lent)
    cast.lent[role] = await lent_anew(stage.channel, lent)
    stage.world.reserved.add(cast.lent[role].key_id)


async def _use(player: Player, speaker: Speaker, random: Random) -> None:
    await player.play_step(step_of(speaker, admin.GetServerInfoRequest(), Asker(random, player.world, speaker)))
