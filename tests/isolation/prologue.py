"""What every user has when an example begins: one of everything there is, so that there is something to steal."""

import asyncio
from random import Random

from google.protobuf.message import Message
from isolation.asker import WORDLESS, Asker
from isolation.cases import CASES
from isolation.cast import Cast, Speaker
from isolation.methods import name_of, user_methods
from isolation.player import Player, Step
from isolation.wire import Answer
from parley.v1 import agent_service_pb2 as agents
from parley.v1 import approval_service_pb2 as approvals
from parley.v1 import content_pb2, run_pb2
from parley.v1 import conversation_service_pb2 as conversations
from parley.v1 import delegation_service_pb2 as delegation
from parley.v1 import tool_service_pb2 as tools
from parley_server.domain.principal import USER_SCOPES

PATIENCE_S = 30.0
# To the end, but for what waits for its user or for ever.
_COMMANDS = ("big", "keep", "spend", "fetch", "whose")
_HANDED_ON_AGAIN = 6
_OPEN_COMMANDS = ("ask", "doubt")
_METHODS = {method.input_type.full_name: method for method in user_methods()}


async def give_everybody_something(player: Player, cast: Cast, random: Random) -> None:
    """Play the first steps of all users, each user's by himself."""
    speakers = {speaker.owner: speaker for speaker in reversed(cast.speakers.values())}
    await asyncio.gather(*(_give(player, speaker, Random(random.random())) for speaker in speakers.values()))
    others = (cast.speakers["bot_for_ann"], *cast.lent.values())
    await asyncio.gather(*(_run(player, speaker, random, "fetch", "run_finished") for speaker in others))
    await asyncio.gather(
        *(_hand_on(player, speaker, random) for speaker in (*cast.speakers.values(), *cast.lent.values()))
    )
    delegates = [player.delegates.pick(random, cast.owners) for _ in range(_HANDED_ON_AGAIN)]
    await asyncio.gather(*(_hand_on(player, each, random) for each in delegates if each is not None))


async def look_again(player: Player, cast: Cast, random: Random) -> None:
    """Have everybody follow the first of his runs anew, from a log that no memory has any more."""
    for speaker in {speaker.owner: speaker for speaker in cast.speakers.values()}.values():
        if runs := player.world.of(speaker.owner, "run_id"):
            request = agents.WatchRunRequest(run_id=runs[0].thing_id)
            await player.play_step(step_of(speaker, request, Asker(random, player.world, speaker)))


async def _give(player: Player, speaker: Speaker, random: Random) -> None:
    told = await _run(player, speaker, random, "say", "run_finished")
    await asyncio.gather(
        *(_run(player, speaker, random, command, "run_finished") for command in _COMMANDS),
        *(_run(player, speaker, random, command, "tool_call_started") for command in _OPEN_COMMANDS),
    )
    asker = Asker(random, player.world, speaker)
    # The same question of everybody, to the letter, about what each has said before.
    again = run_pb2.RunSpec(conversation_id=_conversation_of(told), input=[said("mine")])
    await follow(player, speaker, asker, again, "run_finished")
    for request in (
        conversations.CreateConversationRequest(title=asker.words()),
        approvals.ListApprovalsRequest(),
        tools.ListToolCallsRequest(page_size=2),
        agents.ListRunsRequest(page_size=2),
        conversations.ListConversationsRequest(page_size=2),
    ):
        await player.play_step(step_of(speaker, request, asker))


async def _hand_on(player: Player, speaker: Speaker, random: Random) -> None:
    """Have somebody make tokens: a lasting one, one that soon ends, one for elsewhere, and one for all there is."""
    asker = Asker(random, player.world, speaker)
    own = speaker.scopes & USER_SCOPES
    for scopes, seconds, audience in ((own, 300, ""), (own, 2, ""), (own, 300, "elsewhere"), (USER_SCOPES, 300, "")):
        request = delegation.IssueDelegationTokenRequest(scopes=sorted(scopes), audience=audience)
        request.lifetime.seconds = seconds
        await player.play_step(step_of(speaker, request, asker))


async def _run(player: Player, speaker: Speaker, random: Random, command: str, until: str) -> Answer:
    asker = Asker(random, player.world, speaker)
    text = command if command in WORDLESS else f"{command} {asker.words()}"
    return await follow(player, speaker, asker, run_pb2.RunSpec(input=[said(text)]), until)


async def follow(player: Player, speaker: Speaker, asker: Asker, spec: run_pb2.RunSpec, until: str) -> Answer:
    """Begin a run and wait for the first event of a kind, or the end; its stream is read on behind this."""
    answer = await player.play_step(step_of(speaker, agents.RunAgentRequest(run=spec), asker))
    async with asyncio.timeout(PATIENCE_S):
        while answer.code is None and not _has(answer, until):  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)
    return answer


def _conversation_of(answer: Answer) -> str:
    events = [agents.RunAgentResponse.FromString(raw).event for raw in answer.messages]
    return events[0].conversation_id if events else ""


def said(text: str) -> content_pb2.ContentPart:
    """Return what a user says."""
    return content_pb2.ContentPart(text=text)


def step_of(speaker: Speaker, request: Message, asker: Asker) -> Step:
    """Make the step that is this request of a speaker's own."""
    method = _METHODS[request.DESCRIPTOR.full_name]
    return Step(method, CASES[name_of(method)], speaker, request, speaker.owner, asker.name_of_request())


def _has(answer: Answer, kind: str) -> bool:
    events = [agents.RunAgentResponse.FromString(raw).event for raw in answer.messages]
    return any(event.WhichOneof("event") == kind for event in events)
