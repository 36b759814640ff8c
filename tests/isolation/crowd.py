"""Hundreds of users at once, each with many streams, a third of which are given up: nothing of one reaches another."""

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random

import grpc
from catalogue.door import Caller
from isolation.asker import WORDLESS
from isolation.canary import canary
from isolation.cast import Speaker, user_speaker
from isolation.stage import Stage
from parley.v1 import agent_service_pb2 as agents
from parley.v1 import content_pb2, run_pb2

CANCELLED = 0.3
_PATH = "/parley.v1.AgentService/RunAgent"
# In prompts, tools, notes, errors of tools and of the model.
_COMMANDS = ("say", "mine", "slow", "keep", "find", "spend", "refuse", "break", "big", "fetch", "whose")
_STREAMS_OF_A_CHANNEL = 80
_PATIENCE_S = 1200.0
_MOST_EVENTS = 5
_ATTEMPTS = 10
_PAUSE_S = 5.0


@dataclass
class Crowd:
    """So many users with so many streams each; and, once it is played, what came of them."""

    users: int
    streams: int
    whole: int = 0
    given_up: int = 0
    lost: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    events: int = 0
    seconds: float = 0.0
    scanned: dict[str, int] = field(default_factory=dict)

    def told(self) -> str:
        """Say what was played and looked through."""
        scanned = ", ".join(f"{where} {size // 1024} KiB" for where, size in self.scanned.items())
        return (
            f"crowd: {self.users} users x {self.streams} streams: {self.whole} to their end, {self.given_up} given up, "
            f"{self.lost} lost, asked again after {dict(self.failed)}, {self.events} events, {self.seconds:.0f} s, "
            f"{self.users * self.streams / self.seconds:.0f} streams/s; {scanned}"
        )


async def play_crowd(stage: Stage, crowd: Crowd, seed: int = 1) -> Crowd:
    """Let all of them run at once; what crossed is in the stage's world."""
    random = Random(seed)
    admin = Caller(stage.channel)
    speakers = [await user_speaker(admin, "crowd", f"u{n}", ()) for n in range(crowd.users)]
    for speaker in speakers:
        stage.give_secret(speaker.owner, random)
    count = -(-crowd.users * crowd.streams // _STREAMS_OF_A_CHANNEL)
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(stage.server.address, options=options))
            for _ in range(count)
        ]
        begun = time.monotonic()
        places = (speaker for _ in range(crowd.streams) for speaker in speakers)
        await asyncio.gather(
            *(
                _stream(stage, crowd, channels[n % count], speaker, Random(f"{seed} {n}"))
                for n, speaker in enumerate(places)
            )
        )
        crowd.seconds = time.monotonic() - begun
    stage.look_around()
    crowd.scanned = {where: stage.world.scanned_bytes[where] for where in ("stream", "model", "tool", "host", "log")}
    return crowd


async def _stream(stage: Stage, crowd: Crowd, channel: grpc.aio.Channel, speaker: Speaker, random: Random) -> None:
    """Follow one run, to its end or until it is given up; what ends before its first event is asked for again."""
    command = random.choice(_COMMANDS)
    text = command if command in WORDLESS else f"{command} {canary(speaker.owner, random)}"
    spec = run_pb2.RunSpec(input=[content_pb2.ContentPart(text=text)])
    spec.disconnect_policy = random.choice(run_pb2.DisconnectPolicy.values())
    request = agents.RunAgentRequest(run=spec, request_id=f"{random.getrandbits(64):016x}")
    most = random.randint(0, _MOST_EVENTS) if random.random() < CANCELLED else None
    for _ in range(_ATTEMPTS):
        if await _follow(stage, crowd, channel, speaker, request, most):
            return
        await asyncio.sleep(random.uniform(0, _PAUSE_S))
    crowd.lost += 1


async def _follow(
    stage: Stage,
    crowd: Crowd,
    channel: grpc.aio.Channel,
    speaker: Speaker,
    request: agents.RunAgentRequest,
    most: int | None,
) -> bool:
    """Read so many events, or all; tell whether there were any, or none were wanted."""
    user_id = speaker.owner
    streaming: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(_PATH)
    call = streaming(
        request.SerializeToString(), metadata=grpc.aio.Metadata(*speaker.claiming(user_id)), timeout=_PATIENCE_S
    )
    events = 0
    try:
        while events != most and (message := await call.read()) is not grpc.aio.EOF:
            assert isinstance(message, bytes)
            stage.world.scan(user_id, "stream", message)
            stage.world.learn(user_id, agents.RunAgentResponse.FromString(message))
            events += 1
    except grpc.aio.AioRpcError as error:
        crowd.failed[f"{error.code().name} {error.details()}"] += 1
        stage.world.scan(user_id, "stream", repr(error).encode())
        return events > 0
    finally:
        crowd.events += events
        call.cancel()
    crowd.whole += events != most
    crowd.given_up += events == most
    return True
